"""Reading Cache-Groups (RFC 9875 §2): names that a service gives to responses which go out of date together.

The field is a list of strings (RFC 9651 §3.1), whose parameters mean nothing. One that cannot be read could name
anything, so a response that has it is not kept where groups are a way to end it.
"""

import re
from collections.abc import Sequence
from typing import Final

MAX_GROUPS: Final = 128
"""Of one response; RFC 9875 asks for 32 at least."""
MAX_GROUP_BYTES: Final = 256

_STRING = rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"'
_VALUE = rb'(?:[^\x00-\x20",;\x7f-\xff]+|"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*")'
_MEMBER: Final = re.compile(
    rb"[ ]*" + _STRING + rb"(?:;[ ]*[a-z*][a-z0-9_.*-]*(?:=" + _VALUE + rb")?)*[ \t]*(,[ \t]*|\Z)"
)
_ESCAPED: Final = re.compile(rb"\\(.)")


def read_groups(lines: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """The groups of a response, each once; `None` if they cannot be read, or are too many or too long.

    Args:
        lines: The field's values, in their order.
    """
    value = b", ".join(lines).strip(b" \t")
    found: dict[bytes, None] = {}
    at, end = 0, len(value)
    while at < end:
        match = _MEMBER.match(value, at)
        if match is None:
            return None
        group = _ESCAPED.sub(rb"\1", match.group(1))
        found[group] = None
        if len(group) > MAX_GROUP_BYTES or len(found) > MAX_GROUPS:
            return None
        at = match.end()
        if match.group(2) and at == end:
            return None  # a comma with nothing behind it
    return tuple(found)
