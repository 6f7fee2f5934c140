"""Request targets: paths in their one normal form, and the hosts they are asked of (RFC 9112 §3.2)."""

import re
from typing import Final

from toska_gateway.worker.http1.grammar import BadMessage, remember

ESCAPED_SLASH: Final = b"\x01"
ESCAPED_BACKSLASH: Final = b"\x02"
"""What stands for %2F and %5C in a normal path. No other control character gets into one, so neither can be forged, and
nobody who splits a path at its slashes takes one of these for a slash."""

ABSOLUTE_FORM: Final = re.compile(rb"(https?)://([^/?#@]+)([/?].*)?", re.IGNORECASE)

_HOST = re.compile(rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
# (Possessive: a segment that has been taken is never given back, so the time is linear.)
_PLAIN_PATH = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9\-._~!$&'()*+,;=:@]++)++/?|/")
_QUERY = re.compile(rb"[\x21\x22\x24-\x7e]*")
_RAW_PATH = re.compile(rb"[\x21\x22\x24-\x5b\x5d-\x7e]+")
_paths: dict[bytes, tuple[bytes, bool]] = {}


def read_path_and_query(target: bytes) -> tuple[bytes, bytes, bool, bool]:
    """A target in origin form: its path, decoded and normal, and its query as it came, with its question mark.

    Then whether the path holds escaped slashes, which stand in it as `ESCAPED_SLASH` and `ESCAPED_BACKSLASH`, and
    whether it came in its normal form, in which it may travel too.

    Raises:
        BadMessage: It is malformed.
    """
    mark = target.find(b"?")
    path, query = target, b""
    if mark >= 0:
        path, query = target[:mark], target[mark:]
        if _QUERY.fullmatch(query) is None:
            raise BadMessage(400, "bad-target", "a query is made of visible ASCII characters, without a fragment")
    if _PLAIN_PATH.fullmatch(path):
        return path, query, False, True
    known = _paths.get(path)
    if known is None:
        normal = normalize_path(path)
        known = normal, holds_escaped_slash(normal)
        remember(_paths, path, known)
    return known[0], query, known[1], False


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_ANY_SLASH = re.compile(rb"[/\x01\x02]")
_KEPT = {b"/": ESCAPED_SLASH, b"\\": ESCAPED_BACKSLASH}
_ESCAPED = {ESCAPED_SLASH: b"%2F", ESCAPED_BACKSLASH: b"%5C"}
_UNSAFE = re.compile(rb"[^A-Za-z0-9\-._~!$&'()*+,;=:@/]")


def normalize_path(path: bytes) -> bytes:
    """The one form in which a path is matched: decoded once, without dot segments and doubled slashes.

    Raises:
        BadMessage: It holds a control character, a broken escape, or an escaped slash beside a dot segment.
    """
    if _RAW_PATH.fullmatch(path) is None:
        raise BadMessage(400, "bad-target", "a request target is made of visible ASCII characters")
    segments = _ESCAPE.sub(_decode, path).split(b"/")
    out: list[bytes] = []
    for segment in segments[1:]:
        if segment == b"..":
            if out and holds_escaped_slash(out.pop()):
                raise _beside_dots()
        elif segment not in (b"", b"."):
            out.append(segment)
    slash = b"/" if out and segments[-1] in (b"", b".", b"..") else b""
    normal = b"/" + b"/".join(out) + slash
    if holds_escaped_slash(normal) and not {b".", b".."}.isdisjoint(_ANY_SLASH.split(normal)):
        raise _beside_dots()
    return normal


def _beside_dots() -> BadMessage:
    # Whoever decodes it would resolve /a/..%2Fb, or /a%2Fb/../c, to another path than the one that was matched.
    return BadMessage(400, "bad-target", "an escaped slash does not stand beside a dot segment")


def _decode(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        raise BadMessage(400, "bad-target", "a % in a path is followed by two hexadecimal digits")
    char = bytes((int(match[1], 16),))
    if char in _KEPT:
        return _KEPT[char]
    if char < b" " or char == b"\x7f":
        raise BadMessage(400, "bad-target", "a path holds no control characters")
    return char


def holds_escaped_slash(path: bytes) -> bool:
    """Whether a normal path has an escaped slash or backslash."""
    return ESCAPED_SLASH in path or ESCAPED_BACKSLASH in path


def unescape_slashes(path: bytes) -> bytes:
    """A normal path as whoever decodes it once more would read it."""
    return normalize_path(_UNSAFE.sub(_encode, path.replace(ESCAPED_SLASH, b"/").replace(ESCAPED_BACKSLASH, b"/")))


def encode_path(path: bytes) -> bytes:
    """A normal path as it travels: what RFC 3986 does not allow in a path is percent-encoded."""
    return path if _PLAIN_PATH.fullmatch(path) else _UNSAFE.sub(_encode, path)


def _encode(match: re.Match[bytes]) -> bytes:
    return _ESCAPED.get(match[0]) or b"%%%02X" % match[0][0]


_hosts: dict[bytes, bool] = {}
known_hosts: Final = _hosts.get
"""What `is_host` has said before."""


def is_host(host: bytes) -> bool:
    """Whether this is a name or an address, with or without a port."""
    known = _hosts.get(host)
    if known is None:
        match = _HOST.fullmatch(host)
        known = match is not None and (match[1] is None or int(match[1]) <= 65535)
        remember(_hosts, host, known)
    return known
