"""Request targets: paths in their one normal form, and the hosts they are asked of (RFC 9112 §3.2)."""

import re
from typing import Final

from toska_gateway.worker.http1.grammar import BadMessage, remember

ABSOLUTE_FORM: Final = re.compile(rb"(https?)://([^/?#@]+)([/?].*)?", re.IGNORECASE)

_HOST = re.compile(rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_PLAIN_PATH = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9\-._~!$&'()*+,;=:@]+)+/?|/")
_QUERY = re.compile(rb"[\x21\x22\x24-\x7e]*")
_RAW_PATH = re.compile(rb"[\x21\x22\x24-\x5b\x5d-\x7e]+")
_paths: dict[bytes, bytes] = {}


def read_path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """A target in origin form: its path, decoded and normal, and its query as it came, with its question mark.

    Raises:
        BadMessage: It is malformed.
    """
    path, mark, query = target.partition(b"?")
    if mark and _QUERY.fullmatch(query) is None:
        raise BadMessage(400, "bad-target", "a query is made of visible ASCII characters, without a fragment")
    if _PLAIN_PATH.fullmatch(path):
        return path, mark + query
    known = _paths.get(path)
    if known is None:
        known = normalize_path(path)
        remember(_paths, path, known)
    return known, mark + query


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNSAFE = re.compile(rb"[^A-Za-z0-9\-._~!$&'()*+,;=:@/]")


def normalize_path(path: bytes) -> bytes:
    """The one form in which a path is matched: decoded once, without dot segments and doubled slashes.

    Raises:
        BadMessage: It holds an encoded slash or backslash, a control character, or a broken escape.
    """

    def decode(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise BadMessage(400, "bad-target", "a % in a path is followed by two hexadecimal digits")
        char = bytes((int(match[1], 16),))
        if char in b"/\\":
            raise BadMessage(400, "bad-target", "an encoded slash or backslash is not allowed in a path")
        return char

    if _RAW_PATH.fullmatch(path) is None:
        raise BadMessage(400, "bad-target", "a request target is made of visible ASCII characters")
    decoded = _ESCAPE.sub(decode, path)
    if re.search(rb"[\x00-\x1f\x7f]", decoded):
        raise BadMessage(400, "bad-target", "a path holds no control characters")
    out: list[bytes] = []
    segments = decoded.split(b"/")
    for segment in segments[1:]:
        if segment == b"..":
            if out:
                out.pop()
        elif segment not in (b"", b"."):
            out.append(segment)
    slash = b"/" if out and segments[-1] in (b"", b".", b"..") else b""
    return b"/" + b"/".join(out) + slash


def encode_path(path: bytes) -> bytes:
    """A normal path as it travels: what RFC 3986 does not allow in a path is percent-encoded."""
    if _PLAIN_PATH.fullmatch(path):
        return path
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], path)


_hosts: dict[bytes, bool] = {}


def is_host(host: bytes) -> bool:
    """Whether this is a name or an address, with or without a port."""
    known = _hosts.get(host)
    if known is None:
        match = _HOST.fullmatch(host)
        known = match is not None and (match[1] is None or int(match[1]) <= 65535)
        remember(_hosts, host, known)
    return known
