"""Reading HTTP/1.1 message heads strictly, and framing bodies (RFC 9112).

llhttp (through httptools) splits a head into tokens and refuses what its grammar forbids: bare CR or LF, NUL, obs-fold,
space before a colon, both Content-Length and Transfer-Encoding, lengths that are no plain number. It is fed one head
at a time and never a body, so it cannot lose its place, and what it lets pass is checked here: the request line's
shape, Host, transfer codings, versions, sizes. What is forwarded is built from the tokens, never copied through.
"""

import re
from typing import Final

import httptools

CRLF: Final = b"\r\n"
COLON: Final = b": "
CHUNKED: Final = -1
"""`body_length` of a message whose length is not known beforehand."""

TOKEN_PREFIX: Final = b"toska_"
"""How every token and cookie of the mesh begins (`toska_common.credentials`, which is too heavy to import here)."""

MAX_RESPONSE_HEAD: Final = 256 * 1024
_MAX_CHUNK_LINE: Final = 256
_MAX_TRAILERS: Final = 16 * 1024

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
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ABSOLUTE = re.compile(rb"(https?)://([^/?#@]+)([/?].*)?", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_FIELD_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_OWS_BEFORE_CRLF = (b" \r\n", b"\t\r\n")

_CACHE_SIZE = 1024


class BadMessage(Exception):
    """A message that cannot be served: `status` and `code` of the answer, and the reason."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason


class RequestHead:
    """One request's head. `parts` holds the end-to-end fields, four items each: name, colon, value, CRLF."""

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
        parts = self.parts
        found = [parts[i + 2] for i in range(1, len(parts), 4) if parts[i].lower() == name]
        found += self.special.get(name, ())
        return b", ".join(found) if found else None


class RequestReader:
    """Turns the bytes of one head into a `RequestHead`; one for each client connection."""

    __slots__ = ("_headers", "_parser", "_parts", "_special", "_target_bytes")

    def __init__(self, *, headers: int, target_bytes: int) -> None:
        self._headers = headers
        self._target_bytes = target_bytes
        self._parser: httptools.HttpRequestParser | None = None
        self._parts: list[bytes] = []
        self._special: dict[bytes, tuple[bytes, ...]] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by llhttp for every field line."""
        key = name.lower()
        if key in REQUEST_SPECIAL:
            known = self._special.get(key)
            self._special[key] = (value,) if known is None else (*known, value)
        elif b"_" not in key or key.replace(b"_", b"-") not in REQUEST_SPECIAL:
            # (an upstream that folds _ into - would take x_forwarded_for for ours, so such twins are dropped)
            self._parts += (name, COLON, value, CRLF)

    def read(self, data: bytes) -> RequestHead:
        """Read a head, which ends with its empty line.

        Raises:
            BadMessage: It is not HTTP/1.1 as the RFC has it, or over a limit.
        """
        line = data[: data.find(CRLF)].split(b" ")
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
        if len(target) > self._target_bytes:
            raise BadMessage(414, "target-too-long", f"the request target exceeds {self._target_bytes} bytes")
        # The first item is the place of the request line, so that a head is built without moving the others.
        self._parts = head.parts = [b""]
        self._special = head.special = {}
        self._tokenize(data)
        head.holds_token = TOKEN_PREFIX in data
        if len(head.parts) // 4 + len(head.special) > self._headers:
            raise BadMessage(431, "too-many-headers", f"the request has more than {self._headers} header fields")
        if _OWS_BEFORE_CRLF[0] in data or _OWS_BEFORE_CRLF[1] in data:
            _strip_trailing_space(head)
        _read_target(head, target)
        _read_special(head)
        return head

    def _tokenize(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._parser = None
        except httptools.HttpParserInvalidMethodError:
            self._parser = None
            raise BadMessage(501, "unknown-method", "this method is not known here") from None
        except httptools.HttpParserError as error:
            self._parser = None
            raise BadMessage(400, "bad-request", str(error) or "malformed request head") from None
        if self._special and (b"content-length" in self._special or b"transfer-encoding" in self._special):
            self._parser = None  # it waits for a body, which is framed by us


def _bad_version(version: bytes) -> BadMessage:
    if re.fullmatch(rb"HTTP/[0-9](?:\.[0-9])?", version):
        return BadMessage(505, "unsupported-version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return BadMessage(400, "bad-request-line", "a request line ends with its HTTP version")


def _strip_trailing_space(head: RequestHead) -> None:
    parts = head.parts
    for i in range(3, len(parts), 4):
        parts[i] = parts[i].rstrip(b" \t")
    for name, values in head.special.items():
        head.special[name] = tuple(value.rstrip(b" \t") for value in values)


_PLAIN_PATH = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9\-._~!$&'()*+,;=:@]+)+/?|/")
_paths: dict[bytes, bytes] = {}


def _read_target(head: RequestHead, target: bytes) -> None:
    if target[:1] != b"/":
        target = _foreign_form(head, target)
    path, mark, query = target.partition(b"?")
    if mark and b"#" in query:
        raise BadMessage(400, "bad-target", "a request target has no fragment")
    head.query = mark + query
    if _PLAIN_PATH.fullmatch(path):
        head.path = path
        return
    known = _paths.get(path)
    if known is None:
        known = normalize_path(path)
        if len(_paths) >= _CACHE_SIZE:
            _paths.clear()
        _paths[path] = known
    head.path = known


def _foreign_form(head: RequestHead, target: bytes) -> bytes:
    if target == b"*" and head.method == b"OPTIONS":
        raise BadMessage(400, "bad-target", "OPTIONS * asks about the server itself; name a path")
    if head.method == b"CONNECT":
        raise BadMessage(501, "unknown-method", "this gateway is no forward proxy: CONNECT is not served")
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadMessage(400, "bad-target", "a request target starts with /")
    # RFC 9112 §3.2.2: the target's authority replaces Host, which must be there all the same.
    if head.http11 and len(head.special.get(b"host", ())) != 1:
        raise BadMessage(400, "bad-host", "a request has exactly one Host")
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

    decoded = _ESCAPE.sub(decode, path)
    if re.search(rb"[\x00-\x1f\x7f\\#]", decoded):
        raise BadMessage(400, "bad-target", "a path holds no control characters, backslashes or fragments")
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
        if len(_hosts) >= _CACHE_SIZE:
            _hosts.clear()
        _hosts[host] = known
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
    if len(special) > 1:
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
        if len(_connections) >= _CACHE_SIZE:
            _connections.clear()
        _connections[value] = known
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
    kept = parts[:1]
    for i in range(1, len(parts), 4):
        if parts[i].lower() not in names:
            kept += parts[i : i + 4]
    parts[:] = kept


class ResponseHead:
    """One response's head, its end-to-end fields already in wire form in `parts` (the first is the status line's)."""

    __slots__ = ("body_length", "close", "parts", "special", "status", "status_line")

    status: int
    status_line: bytes
    body_length: int | None  # bytes, CHUNKED, or None: until the upstream closes
    close: bool
    parts: list[bytes]
    special: dict[bytes, tuple[bytes, ...]]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by llhttp for every field line."""
        key = name.lower()
        if key in RESPONSE_SPECIAL:
            known = self.special.get(key)
            self.special[key] = (value,) if known is None else (*known, value)
        else:
            self.parts += (name, COLON, value, CRLF)


_status_lines: dict[bytes, tuple[int, bytes]] = {}
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")


def _read_status_line(line: bytes) -> tuple[int, bytes]:
    known = _status_lines.get(line)
    if known is None:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise BadMessage(502, "bad-upstream-response", "the upstream's status line is malformed")
        known = int(match[1]), b"HTTP/1.1 " + match[1] + b" " + (match[2] or b"") + CRLF
        if len(_status_lines) >= _CACHE_SIZE:
            _status_lines.clear()
        _status_lines[line] = known
    return known


def read_response(data: bytes, *, bodiless: bool) -> ResponseHead:
    """Read a response head, which ends with its empty line; `bodiless` if it answers a HEAD.

    Raises:
        BadMessage: It breaks a rule; status 502, since the upstream is at fault.
    """
    head = ResponseHead()
    line = data[: data.find(CRLF)]
    head.status, head.status_line = _read_status_line(line)
    head.parts = [head.status_line]
    special: dict[bytes, tuple[bytes, ...]] = {}
    head.special = special
    try:
        httptools.HttpResponseParser(head).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadMessage(502, "bad-upstream-response", f"the upstream's response is malformed: {error}") from None
    head.close = line[7] == 0x30  # HTTP/1.0
    if special:
        connection = special.get(b"connection")
        if connection is not None:
            options = connection_options(connection)
            head.close = options.close or (head.close and not options.keep_alive)
            if options.nominated:
                drop_fields(head.parts, options.nominated)
    head.body_length = _response_length(head, bodiless)
    return head


def _response_length(head: ResponseHead, bodiless: bool) -> int | None:
    special = head.special
    lengths = special.get(b"content-length")
    codings = special.get(b"transfer-encoding")
    if codings is not None:
        if len(codings) != 1 or codings[0].strip(b" \t").lower() != b"chunked":
            raise BadMessage(502, "bad-upstream-response", "the upstream used a transfer coding that is not served")
        if lengths is not None:
            raise BadMessage(502, "bad-upstream-response", "the upstream sent both lengths and a transfer coding")
    elif lengths is not None:
        length = lengths[0].strip(b" \t")
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
        if self._trailer_bytes > _MAX_TRAILERS or _FIELD_LINE.fullmatch(line) is None:
            raise BadMessage(400, "bad-chunk", "malformed or too many trailers")
        return False
