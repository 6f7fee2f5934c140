"""Other places: the path and host that the upstream is asked for, and where a redirect leads.

Paths are rewritten decoded and normal. What comes out is held to the same form: a rule that would put a dot segment
together out of what a client sent refuses the request, because an upstream would walk out of the rule's own prefix.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_from_bytes

from toska_common.path_templates import PathTemplate
from toska_common.regexes import Regex, Replacement

from toska_gateway.worker.http1 import BadMessage, RequestHead, encode_path
from toska_gateway.worker.http1.grammar import remember

if TYPE_CHECKING:
    from toska_gateway.worker.forwarding import Forwarding

_SLASHES: Final = re.compile(rb"/{2,}")
_ANY_SLASH: Final = re.compile(rb"[/\\\x01\x02]")
"""Slashes, backslashes, and what stands for escaped ones in a normal path."""
_DOTS: Final = frozenset({b".", b".."})
_PLACE: Final = re.compile(r"((?:https?://[^/?#]*)?)([^?#]*)(.*)", re.DOTALL)


class PathRewrite:
    """Makes another path of a request's own. What an expression made of one is remembered: that is 9 µs."""

    __slots__ = ("_cut", "_known", "_prefix", "_regex", "_replacement")

    def __init__(self, settings: dict[str, Any], match: dict[str, Any]) -> None:
        prefix, replacement = settings["prefix"], settings["replacement"]
        self._cut = len((match.get("path_prefix") or "").rstrip("/"))
        self._prefix: bytes = (prefix or "").rstrip("/").encode()
        self._regex: Regex | None = None
        self._replacement: Replacement | None = None
        self._known: dict[bytes, bytes] = {}
        if replacement is not None:
            if settings["regex"]:
                self._regex = Regex(settings["regex"])
            else:
                self._regex, replacement = _captured(match, replacement)
            self._replacement = Replacement(replacement, self._regex)

    def apply(self, path: bytes) -> bytes:
        """The path for the upstream, normal again.

        Raises:
            BadMessage: It would hold a dot segment.
        """
        if self._regex is None or self._replacement is None:
            return self._prefix + path[self._cut :] or b"/"
        known = self._known.get(path)
        if known is None:
            captures = self._regex.captures(path)
            known = path if captures is None else normal(self._replacement.expand(captures))
            remember(self._known, path, known)
        return known


def compile_rewrite(settings: dict[str, Any], match: dict[str, Any]) -> PathRewrite | None:
    """The rewriting of a path, if the settings have one."""
    if settings.get("prefix") is None and settings.get("replacement") is None:
        return None
    return PathRewrite(settings, match)


def normal(path: bytes) -> bytes:
    """A decoded path that was put together, with one slash where there are several.

    Raises:
        BadMessage: It holds a dot segment.
    """
    path = _SLASHES.sub(b"/", path if path[:1] == b"/" else b"/" + path)
    if not _DOTS.isdisjoint(_ANY_SLASH.split(path)):
        raise BadMessage(400, "bad-target", "rewritten by this route, the path would hold a dot segment")
    return path


class Redirect:
    """Where a route sends its clients."""

    __slots__ = (
        "_authority", "_cut", "_elsewhere", "_host", "_keep_query", "_path", "_prefix", "_query", "_regex", "_scheme",
        "status",
    )  # fmt: skip

    def __init__(self, settings: dict[str, Any], match: dict[str, Any]) -> None:
        self.status: int = settings["status"]
        self._keep_query: bool = settings["keep_query"]
        self._scheme: bytes = (settings["scheme"] or "").encode()
        self._host: bytes = (settings["host"] or "").encode()
        self._cut = len((match.get("path_prefix") or "").rstrip("/"))
        prefix = settings["prefix"]
        self._prefix: bytes | None = None if prefix is None else prefix.rstrip("/").encode()
        self._elsewhere = settings["to"] is not None
        self._regex, to = _captured(match, settings["to"]) if self._elsewhere else (None, "")
        place = _PLACE.fullmatch(to)
        assert place is not None  # noqa: S101 - the expression fits every text
        self._authority: bytes = place[1].encode()
        self._path = _template(place[2], self._regex)
        self._query = _template(place[3], self._regex)

    def location(self, head: RequestHead, forwarding: "Forwarding") -> bytes:
        """The value of Location.

        Raises:
            BadMessage: What the client sent would make it another place than the rule's.
        """
        place, query = self._other(head) if self._elsewhere else (self._likewise(head, forwarding), b"")
        if not self._keep_query or not head.query:
            return place + query
        mark, fragment, end = query.partition(b"#")
        joined = mark + b"&" + head.query[1:] if b"?" in mark else mark + head.query
        return place + joined + fragment + end

    def _other(self, head: RequestHead) -> tuple[bytes, bytes]:
        captures: Sequence[bytes | None] = ()
        if self._regex is not None:
            captures = self._regex.captures(head.path) or ()
        path, query = self._path, self._query
        if isinstance(path, Replacement):
            # Normal, lest //elsewhere.example names a host; the rule's own escapes stay as they are written.
            path = normal(path.expand([encode_path(one or b"") for one in captures]))
        if isinstance(query, Replacement):
            query = query.expand([quote_from_bytes(_plain(one or b""), safe="").encode() for one in captures])
        return self._authority + path, query

    def _likewise(self, head: RequestHead, forwarding: "Forwarding") -> bytes:
        path = head.path if self._prefix is None else self._prefix + head.path[self._cut :] or b"/"
        if not self._scheme and not self._host:
            return encode_path(path)
        host = self._host or (bare_authority(head.host) if self._scheme else head.host)
        if not host:
            raise BadMessage(400, "bad-host", "without a Host nobody can say where to go instead")
        return (self._scheme or forwarding.scheme_of(head)) + b"://" + host + encode_path(path)


def _captured(match: dict[str, Any], text: str) -> tuple[Regex | None, str]:
    """What captures parts of the paths that a match takes, and a text with its references to them."""
    if match.get("path_template") is not None:
        template = PathTemplate(match["path_template"])
        return Regex(template.regex), template.references(text)
    pattern = match.get("path_regex")
    return None if pattern is None else Regex(pattern), text


def _template(text: str, regex: Regex | None) -> Replacement | bytes:
    return text.encode() if regex is None or "\\" not in text else Replacement(text, regex)


def _plain(captured: bytes) -> bytes:
    return captured.replace(b"\x01", b"/").replace(b"\x02", b"\\")


def bare_authority(host: bytes) -> bytes:
    """A Host without its port, as it was written."""
    return host.partition(b"]")[0] + b"]" if host[:1] == b"[" else host.partition(b":")[0]
