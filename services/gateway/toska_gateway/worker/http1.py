"""Reading HTTP/1.1 message heads strictly, and framing bodies (RFC 9112).

A head is split at its CRLFs, and every line is held to the grammar by one regular expression: so bare CR or LF, NUL,
obs-fold, a space before the colon and bad names cannot pass. What a line comes to is remembered by its bytes: of the
fields that clients and services send, most are the same from one message to the next, and a look-up costs a fifth of
an analysis (figures in docs/performance.md). The memory is bounded and starts anew when it is full.

What is forwarded is built from what was understood, never copied through.
"""

import re
from typing import Final, TypeVar

CRLF: Final = b"\r\n"
CHUNKED: Final = -1
"""`body_length` of a message whose length is not known beforehand."""

TOKEN_PREFIX: Final = b"toska_"
"""How every token and cookie of the mesh begins (`toska_common.credentials`, which is too heavy to import here)."""

MAX_RESPONSE_HEAD: Final = 256 * 1024
_MAX_CHUNK_LINE: Final = 256
_MAX_TRAILERS: Final = 16 * 1024
_MAX_REPEATS: Final = 100

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""RFC 9110 §9.2.2."""

# Meant for this hop only (RFC 9110 §7.6.1), or about framing, or set by the gateway: none is passed on as it came.
REQUEST_SPECIAL: Final = frozenset(
    {
        b"host", b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"content-length", b"te",
        b"trailer", b"upgrade", b"expect", b"http2-settings", b"proxy-authorization",
        b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
        b"x-real-ip", b"forwarded", b"x-request-id", b"traceparent", b"via", b"x-consul-token", b"x-toska-caller",
    }
)  # fmt: skip
RESPONSE_SPECIAL: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"content-length", b"trailer",
        b"upgrade", b"proxy-authenticate", b"x-toska-error",
    }
)  # fmt: skip

_HOST = re.compile(rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_ABSOLUTE = re.compile(rb"(https?)://([^/?#@]+)([/?].*)?", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN = re.compile(_NAME)
# The space around a value is stripped afterwards: matching it here takes time quadratic in a run of spaces.
_FIELD = re.compile(rb"(" + _NAME + rb"):([\t\x20-\x7e\x80-\xff]*)")

_CACHE_SIZE = 1024
_MEMO_LINES = 4096
_MEMO_LINE_BYTES = 512

T = TypeVar("T")

METHODS: Final = frozenset(
    {
        b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE",
        b"ACL", b"BASELINE-CONTROL", b"BIND", b"CHECKIN", b"CHECKOUT", b"COPY", b"LABEL", b"LINK", b"LOCK", b"MERGE",
        b"MKACTIVITY", b"MKCALENDAR", b"MKCOL", b"MKREDIRECTREF", b"MKWORKSPACE", b"MOVE", b"ORDERPATCH", b"PROPFIND",
        b"PROPPATCH", b"QUERY", b"REBIND", b"REPORT", b"SEARCH", b"UNBIND", b"UNCHECKOUT", b"UNLINK", b"UNLOCK",
        b"UPDATE", b"UPDATEREDIRECTREF", b"VERSION-CONTROL", b"PURGE",
    }
)  # fmt: skip
"""IANA's registry of methods without CONNECT and PRI, and PURGE, which caches know."""


class BadMessage(Exception):
    """A message that cannot be served: `status` and `code` of the answer, and the reason."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason


def _remember(memory: dict[bytes, T], key: bytes, value: T, most: int = _CACHE_SIZE) -> None:
    # Keys come from strangers, so they are bounded in number and in length: 1,024 lines of 60 KB would be 60 MB.
    if len(key) <= _MEMO_LINE_BYTES:
        if len(memory) >= most:
            memory.clear()
        memory[key] = value


class FieldMemo:
    """What field lines come to: `line -> (special, wire, value)`.

    `special` is the lower-case name of a field that is not passed on as it came, else `None`; `wire` is the line as it
    is passed on (empty if it is dropped), with its CRLF.
    """

    __slots__ = ("_lines", "_special", "get")

    def __init__(self, special: frozenset[bytes]) -> None:
        self._special = special
        self._lines: dict[bytes, tuple[bytes | None, bytes, bytes]] = {}
        self.get = self._lines.get

    def learn(self, line: bytes) -> "tuple[bytes | None, bytes, bytes] | None":
        """Analyse a line that `get` does not know; `None` if it is malformed."""
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        name, value = match[1], match[2].strip(b" \t")
        key = name.lower()
        if key in self._special:
            entry = key, b"", value
        elif b"_" in key and key.replace(b"_", b"-") in self._special:
            # An upstream that folds _ into - would take x_forwarded_for for ours, so such twins are dropped.
            entry = None, b"", value
        else:
            entry = None, name + b": " + value + CRLF, value
        _remember(self._lines, line, entry, _MEMO_LINES)
        return entry


_request_fields = FieldMemo(REQUEST_SPECIAL)
_response_fields = FieldMemo(RESPONSE_SPECIAL)


class RequestHead:
    """One request's head. `parts` holds the end-to-end field lines as they are passed on, each with its CRLF.

    The first part is the place of the request line, so that a head is built without moving the others.
    """

    __slots__ = (
        "body_length", "close", "expect", "holds_token", "host", "http11", "method", "parts", "path", "query",
        "special", "upgrade",
    )  # fmt: skip

    method: bytes
    path: bytes  # decoded and normalised; what routes match and what is forwarded (encoded again)
    query: bytes  # as it came, with its question mark
    host: bytes  # the authority, as it is forwarded
    http11: bool
    holds_token: bool  # somewhere in it stands what looks like a credential of the mesh
    close: bool  # the client wants, or needs, the connection closed after the answer
    expect: bool  # Expect: 100-continue
    upgrade: bytes  # protocol that the client asks to switch to, lower-case
    body_length: int  # bytes, or CHUNKED
    parts: list[bytes]
    special: dict[bytes, tuple[bytes, ...]]

    def field(self, name: bytes) -> bytes | None:
        """A field's value by lower-case name, members joined; for routes that match on headers."""
        found = [field_value(part) for part in self.parts[1:] if field_name(part) == name]
        found += self.special.get(name, ())
        return b", ".join(found) if found else None


def field_name(part: bytes) -> bytes:
    """The lower-case name of a field line in `parts`."""
    return part[: part.find(b":")].lower()


def field_value(part: bytes) -> bytes:
    """The value of a field line in `parts`."""
    return part[part.find(b":") + 2 : -2]


def read_request(data: bytes, max_fields: int, max_target: int) -> RequestHead:
    """Read a request's head, which ends with its empty line.

    Raises:
        BadMessage: It is not HTTP/1.1 as the RFC has it, or over a limit.
    """
    lines = data.split(CRLF)
    line = lines[0].split(b" ")
    if len(line) != 3:
        raise BadMessage(400, "bad-request-line", "a request line is a method, a target and a version")
    head = RequestHead()
    head.method, target, version = line
    if version == b"HTTP/1.1":
        head.http11 = True
    elif version == b"HTTP/1.0":
        head.http11 = False
    else:
        raise _bad_version(version)
    if head.method not in METHODS:
        raise _bad_method(head.method)
    if len(target) > max_target:
        raise BadMessage(414, "target-too-long", f"the request target exceeds {max_target} bytes")
    if len(lines) > max_fields + 3:
        raise BadMessage(431, "too-many-headers", f"the request has more than {max_fields} header fields")
    head.parts = parts = [b""]
    special: dict[bytes, tuple[bytes, ...]] = {}
    head.special = special
    known, learn = _request_fields.get, _request_fields.learn
    for field in lines[1:-2]:
        entry = known(field) or learn(field)
        if entry is None:
            raise BadMessage(400, "bad-header", "a header field is malformed")
        key, wire, value = entry
        if key is None:
            parts.append(wire)
        elif key in special:
            special[key] += (value,)
        else:
            special[key] = (value,)
    head.holds_token = TOKEN_PREFIX in data
    _read_target(head, target)
    _read_special(head)
    return head


def _bad_method(method: bytes) -> BadMessage:
    if _TOKEN.fullmatch(method) is None:
        return BadMessage(400, "bad-request-line", "a request line starts with a method")
    if method == b"CONNECT":
        return BadMessage(501, "unknown-method", "this gateway is no forward proxy: CONNECT is not served")
    return BadMessage(501, "unknown-method", "this method is not known here")


def _bad_version(version: bytes) -> BadMessage:
    if re.fullmatch(rb"HTTP/[0-9](?:\.[0-9])?", version):
        return BadMessage(505, "unsupported-version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return BadMessage(400, "bad-request-line", "a request line ends with its HTTP version")


_PLAIN_PATH = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9\-._~!$&'()*+,;=:@]+)+/?|/")
_QUERY = re.compile(rb"[\x21\x22\x24-\x7e]*")
_RAW_PATH = re.compile(rb"[\x21\x22\x24-\x5b\x5d-\x7e]+")
_paths: dict[bytes, bytes] = {}


def _read_target(head: RequestHead, target: bytes) -> None:
    if target[:1] != b"/":
        target = _foreign_form(head, target)
    path, mark, query = target.partition(b"?")
    if mark and _QUERY.fullmatch(query) is None:
        raise BadMessage(400, "bad-target", "a query is made of visible ASCII characters, without a fragment")
    head.query = mark + query
    if _PLAIN_PATH.fullmatch(path):
        head.path = path
        return
    known = _paths.get(path)
    if known is None:
        known = normalize_path(path)
        _remember(_paths, path, known)
    head.path = known


def _foreign_form(head: RequestHead, target: bytes) -> bytes:
    if target == b"*" and head.method == b"OPTIONS":
        raise BadMessage(400, "bad-target", "OPTIONS * asks about the server itself; name a path")
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadMessage(400, "bad-target", "a request target starts with /")
    # RFC 9112 §3.2: the target's authority replaces Host, which has to be a proper one all the same.
    hosts = head.special.get(b"host", ())
    if len(hosts) > 1 or (head.http11 and not hosts) or (hosts and not _valid_host(hosts[0])):
        raise BadMessage(400, "bad-host", "a request has exactly one Host, a name or address with an optional port")
    head.special[b"host"] = (match[2],)
    rest = match[3] or b"/"
    return rest if rest[:1] == b"/" else b"/" + rest


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


def _valid_host(host: bytes) -> bool:
    known = _hosts.get(host)
    if known is None:
        match = _HOST.fullmatch(host)
        known = match is not None and (match[1] is None or int(match[1]) <= 65535)
        _remember(_hosts, host, known)
    return known


def _read_special(head: RequestHead) -> None:
    special = head.special
    hosts = special.get(b"host")
    if hosts is not None and len(hosts) == 1 and _valid_host(hosts[0]):
        head.host = hosts[0]
    elif hosts is None and not head.http11:
        head.host = b""
    else:
        raise BadMessage(400, "bad-host", "a request has exactly one Host, a name or address with an optional port")
    head.close = not head.http11
    head.expect = False
    head.upgrade = b""
    head.body_length = 0
    if len(special) > 1 or hosts is None:
        _read_framing(head)
        if b"connection" in special:
            _read_connection(head)
        if b"expect" in special:
            head.expect = _expects_continue(head)


def _read_framing(head: RequestHead) -> None:
    special = head.special
    codings = special.get(b"transfer-encoding")
    if codings is not None:
        if not head.http11:
            raise BadMessage(400, "bad-framing", "Transfer-Encoding has no meaning in HTTP/1.0")
        if b"content-length" in special:
            raise BadMessage(400, "bad-framing", "a request has a Content-Length or a Transfer-Encoding, not both")
        _require_chunked(codings)
        head.body_length = CHUNKED
        return
    lengths = special.get(b"content-length")
    if lengths is not None:
        if len(lengths) != 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
            raise BadMessage(400, "bad-framing", "Content-Length is one plain decimal number")
        head.body_length = int(lengths[0])


def _require_chunked(codings: tuple[bytes, ...]) -> None:
    if len(codings) == 1 and codings[0].lower() == b"chunked":
        return
    members = [member.strip(b" \t").lower() for coding in codings for member in coding.split(b",")]
    if any(_TOKEN.fullmatch(member) is None for member in members) or members.count(b"chunked") > 1:
        raise BadMessage(400, "bad-framing", "Transfer-Encoding is malformed")
    if members[-1] != b"chunked":
        raise BadMessage(400, "bad-framing", "the last transfer coding of a request is chunked (RFC 9112 §6.3)")
    raise BadMessage(501, "unknown-coding", "of the transfer codings, only chunked is served")


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
        _remember(_connections, value, known)
    return known


def _read_connection(head: RequestHead) -> None:
    options = connection_options(head.special[b"connection"])
    if options.close:
        head.close = True
    elif options.keep_alive and not head.http11:
        head.close = False
    # Only WebSocket-like switches: never h2c, never with a body (RFC 9110 §7.8 lets a server ignore Upgrade).
    if options.upgrade and head.http11 and head.body_length == 0:
        head.upgrade = b",".join(head.special.get(b"upgrade", ())).lower()
    if options.nominated:
        drop_fields(head.parts, options.nominated)


def _expects_continue(head: RequestHead) -> bool:
    value = b",".join(head.special[b"expect"]).lower()
    if value != b"100-continue":
        raise BadMessage(417, "unknown-expectation", "of the expectations, only 100-continue is served")
    return head.http11 and head.body_length != 0


def drop_fields(parts: list[bytes], names: frozenset[bytes]) -> None:
    """Take fields out of `parts`, by lower-case name."""
    parts[1:] = [part for part in parts[1:] if field_name(part) not in names]


class ResponseHead:
    """One response's head. `parts` holds the status line and the end-to-end field lines as they are passed on."""

    __slots__ = ("body_length", "close", "parts", "special", "status")

    status: int
    body_length: int | None  # bytes, CHUNKED, or None: until the upstream closes
    close: bool
    parts: list[bytes]
    special: dict[bytes, tuple[bytes, ...]]


_status_lines: dict[bytes, tuple[int, bytes]] = {}
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")


def _read_status_line(line: bytes) -> tuple[int, bytes]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadMessage(502, "bad-upstream-response", "the upstream's status line is malformed")
    known = int(match[1]), b"HTTP/1.1 " + match[1] + b" " + (match[2] or b"") + CRLF
    _remember(_status_lines, line, known)
    return known


def read_response(data: bytes, *, bodiless: bool) -> ResponseHead:
    """Read a response's head, which ends with its empty line; `bodiless` if it answers a HEAD.

    Raises:
        BadMessage: It breaks a rule; status 502, since the upstream is at fault.
    """
    head = ResponseHead()
    lines = data.split(CRLF)
    line = lines[0]
    known_line = _status_lines.get(line) or _read_status_line(line)
    head.status = known_line[0]
    head.parts = parts = [known_line[1]]
    special: dict[bytes, tuple[bytes, ...]] = {}
    head.special = special
    known, learn = _response_fields.get, _response_fields.learn
    for field in lines[1:-2]:
        entry = known(field) or learn(field)
        if entry is None:
            raise BadMessage(502, "bad-upstream-response", "a header field of the upstream's response is malformed")
        key, wire, value = entry
        if key is None:
            parts.append(wire)
        elif key in special:
            special[key] += (value,)
            if len(special[key]) > _MAX_REPEATS:
                raise BadMessage(502, "bad-upstream-response", "the upstream repeats a header field without end")
        else:
            special[key] = (value,)
    head.close = line[7] == 0x30  # HTTP/1.0
    if special:
        connection = special.get(b"connection")
        if connection is not None:
            options = connection_options(connection)
            head.close = options.close or (head.close and not options.keep_alive)
            if options.nominated:
                drop_fields(parts, options.nominated)
    head.body_length = _response_length(head, bodiless)
    return head


def _response_length(head: ResponseHead, bodiless: bool) -> int | None:
    special = head.special
    lengths = special.get(b"content-length")
    codings = special.get(b"transfer-encoding")
    if codings is not None:
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise BadMessage(502, "bad-upstream-response", "the upstream used a transfer coding that is not served")
        if lengths is not None:
            raise BadMessage(502, "bad-upstream-response", "the upstream sent both lengths and a transfer coding")
    elif lengths is not None:
        length = lengths[0]
        if len(lengths) != 1 or not length.isdigit() or len(length) > 18:
            raise BadMessage(502, "bad-upstream-response", "the upstream's Content-Length is no plain number")
        if not bodiless and head.status not in (204, 304):
            return int(length)
    if bodiless or head.status in (204, 304) or head.status < 200:
        return 0
    return CHUNKED if codings is not None else None


class ChunkedDecoder:
    """Takes the chunked coding off a body (RFC 9112 §7.1), strictly; trailers are checked and dropped.

    `feed` returns the payload in `data`; afterwards `rest` is `None` while the body goes on, else what follows it.
    """

    __slots__ = ("_buffer", "_left", "_trailer_bytes", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # > 0: bytes of the chunk; 0: a size line is due; -1: CRLF after a chunk is due; -2: trailers
        self._trailer_bytes = 0
        self.rest: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return their payload.

        Raises:
            BadMessage: Malformed chunking, status 400.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        position, size = 0, len(data)
        out: list[bytes] = []
        while position < size:
            if self._left > 0:
                piece = data[position : position + self._left]
                out.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._left = -1
            elif self._left == -1:
                if size - position == 1 and data[position] == 0x0D:
                    break
                if data[position : position + 2] != CRLF:
                    raise BadMessage(400, "bad-chunk", "a chunk is followed by CRLF")
                position += 2
                self._left = 0
            else:
                end = data.find(b"\n", position)
                limit = _MAX_CHUNK_LINE if self._left == 0 else _MAX_TRAILERS
                if (end if end >= 0 else size) - position > limit:
                    raise BadMessage(400, "bad-chunk", "a chunk-size or trailer line is too long")
                if end < 0:
                    break
                line = data[position:end]
                position = end + 1
                if line[-1:] != b"\r":
                    raise BadMessage(400, "bad-chunk", "lines end with CRLF")
                if self._take_line(line[:-1]):
                    self.rest = data[position:]
                    return b"".join(out) if len(out) != 1 else out[0]
        self._buffer = data[position:]
        return b"".join(out) if len(out) != 1 else out[0]

    def _take_line(self, line: bytes) -> bool:
        """Take a size or trailer line; tells whether it was the body's last."""
        if self._left == 0:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise BadMessage(400, "bad-chunk", "a chunk starts with its size in hexadecimal")
            self._left = int(match[1], 16) or -2
            return False
        if not line:
            return True
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _MAX_TRAILERS or _FIELD.fullmatch(line) is None:
            raise BadMessage(400, "bad-chunk", "malformed or too many trailers")
        return False
