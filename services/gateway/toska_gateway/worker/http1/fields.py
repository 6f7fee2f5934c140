"""Field lines: which are passed on as they came, which never are, and what Connection takes along."""

from typing import Final

from toska_gateway.worker.http1.grammar import CRLF, FIELD, remember

TOKEN_PREFIX: Final = b"toska_"
"""How every token and cookie of the mesh begins (`toska_common.credentials`, which is too heavy to import here)."""

# Meant for this hop only (RFC 9110 §7.6.1), or about framing, or set by the gateway: none is passed on as it came.
REQUEST_SPECIAL: Final = frozenset(
    {
        b"host", b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"content-length", b"te",
        b"trailer", b"upgrade", b"expect", b"http2-settings", b"proxy-authorization",
        b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
        b"x-real-ip", b"forwarded", b"x-request-id", b"traceparent", b"tracestate", b"via",
        b"x-consul-token", b"x-toska-caller",
    }
)  # fmt: skip
RESPONSE_SPECIAL: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"content-length", b"trailer",
        b"upgrade", b"proxy-authenticate", b"x-toska-error",
    }
)  # fmt: skip

_MEMORY_LINES: Final = 4096
FLEETING: Final = frozenset(
    {
        b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-api-key", b"x-consul-token",
        b"traceparent", b"tracestate", b"x-request-id", b"etag",
    }
)  # fmt: skip
"""Not remembered: credentials do not outlive their message, and what is new each time would only push out the rest."""


class FieldMemo:
    """What field lines come to: `line -> (special, wire, value)`.

    `special` is the lower-case name of a field that is not passed on as it came, else `None`; `wire` is the line as it
    is passed on (empty if it is dropped), with its CRLF.
    """

    __slots__ = ("_lines", "_names", "_special", "get")

    def __init__(self, special: frozenset[bytes]) -> None:
        self._special = special
        self._lines: dict[bytes, tuple[bytes | None, bytes, bytes]] = {}
        self._names: dict[bytes, tuple[bytes | None, bool, bool]] = {}
        self.get = self._lines.get

    def learn(self, line: bytes) -> "tuple[bytes | None, bytes, bytes] | None":
        """Analyse a line that `get` does not know; `None` if it is malformed."""
        if FIELD.fullmatch(line) is None:
            return None
        colon = line.find(b":")
        name = line[:colon]
        value = line[colon + 1 :].strip(b" \t")
        special, passes, lasts = self._names.get(name) or self._learn_name(name)
        entry = special, name + b": " + value + CRLF if passes else b"", value
        if lasts and TOKEN_PREFIX not in line:
            remember(self._lines, line, entry, _MEMORY_LINES)
        return entry

    def _learn_name(self, name: bytes) -> tuple[bytes | None, bool, bool]:
        """What a name comes to: itself if it is special, whether its line is passed on, and whether remembered."""
        key = name.lower()
        kind: tuple[bytes | None, bool, bool]
        if key in self._special:
            kind = key, False, key not in FLEETING
        else:
            # An upstream that folds _ into - would take x_forwarded_for for ours, so such twins are dropped.
            kind = None, key.replace(b"_", b"-") not in self._special, key not in FLEETING
        remember(self._names, name, kind)
        return kind


def field_name(part: bytes) -> bytes:
    """The lower-case name of a field line in `parts`."""
    return part[: part.find(b":")].lower()


def field_value(part: bytes) -> bytes:
    """The value of a field line in `parts`."""
    return part[part.find(b":") + 2 : -2]


def drop_fields(parts: list[bytes], names: frozenset[bytes]) -> None:
    """Take fields out of `parts`, by lower-case name."""
    parts[1:] = [part for part in parts[1:] if field_name(part) not in names]


def drop_spellings(parts: list[bytes], names: frozenset[bytes]) -> None:
    """Take fields out of `parts`, in every spelling that upstreams may fold into one; `names` have - for _."""
    parts[1:] = [part for part in parts[1:] if field_name(part).replace(b"_", b"-") not in names]


# What tells of a body's bytes: ranges of them (RFC 9110 §14.3), and digests (RFC 9530, RFC 3230, RFC 1864).
_OF_BYTES: Final = frozenset({b"accept-ranges", b"content-digest", b"repr-digest", b"digest", b"content-md5"})


def forget_bytes(parts: list[bytes]) -> None:
    """Take out of `parts` what was said of a body that goes on as other bytes; its ETag becomes a weak one.

    A digest of what it becomes could not go in front of it, and RFC 9110 §8.8.1 wants a strong ETag to change with
    every byte.
    """
    kept = parts[:1]
    for part in parts[1:]:
        name = field_name(part)
        if name == b"etag" and not field_value(part).startswith(b"W/"):
            kept.append(b"etag: W/" + field_value(part) + CRLF)
        elif name not in _OF_BYTES:
            kept.append(part)
    parts[:] = kept


class ConnectionOptions:
    """What a Connection field says: close or keep-alive, upgrade, and the fields that it takes along."""

    __slots__ = ("close", "keep_alive", "nominated", "upgrade")

    def __init__(self, value: bytes) -> None:
        options = {option.strip(b" \t").lower() for option in value.split(b",")}
        self.close = b"close" in options
        self.keep_alive = b"keep-alive" in options
        self.upgrade = b"upgrade" in options
        self.nominated = frozenset(options - {b"close", b"keep-alive", b"upgrade", b""})


_connections: dict[bytes, ConnectionOptions] = {}


def connection_options(values: tuple[bytes, ...]) -> ConnectionOptions:
    """Parse (or recall) the Connection field; there are few different ones on a listener."""
    value = values[0] if len(values) == 1 else b",".join(values)
    known = _connections.get(value)
    if known is None:
        known = ConnectionOptions(value)
        remember(_connections, value, known)
    return known
