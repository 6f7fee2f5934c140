"""Topics as channels of Redis, and patterns as its globs, which stand for more: what comes is matched again. Pure."""

import re
from collections.abc import Sequence

from toska_common.events.topics import matches


def channel_of(namespace: str, topic: str) -> str:
    """The channel of a topic."""
    return f"{namespace}:{topic}"


def topic_of(namespace: str, channel: str) -> str:
    """The topic of a channel."""
    return channel.removeprefix(f"{namespace}:")


def glob_of(pattern: str) -> str:
    """A glob that stands for at least what the pattern does; words hold nothing that globs know."""
    return re.sub(r"\.?#\.?", "*", pattern)


class Wanted:
    """Which channels and globs somebody subscribes to, and which of their messages are his.

    Redis sends a message once for each subscription that it falls under; the first of them counts.
    """

    def __init__(self, namespace: str, patterns: Sequence[str]) -> None:
        self._namespace = namespace
        self._patterns = tuple(patterns)
        globs = dict.fromkeys(glob_of(pattern) for pattern in patterns)
        self.channels = tuple(channel_of(namespace, glob) for glob in globs if "*" not in glob)
        self.globs = tuple(channel_of(namespace, glob) for glob in globs if "*" in glob)
        self._expressions = tuple((glob, re.compile(_expression(glob))) for glob in self.globs)

    def takes(self, channel: str, glob: str | None) -> bool:
        """Whether a message is for him, and has not come by another subscription already."""
        topic = topic_of(self._namespace, channel)
        if not any(matches(pattern, topic) for pattern in self._patterns):
            return False
        if channel in self.channels:
            return glob is None
        return glob == next(text for text, expression in self._expressions if expression.fullmatch(channel))


def _expression(glob: str) -> str:
    return ".*".join(re.escape(part) for part in glob.split("*"))
