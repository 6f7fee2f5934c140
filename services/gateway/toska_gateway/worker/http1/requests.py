"""Reading a request's head: its line, its fields, and how long its body is."""

import re
from typing import Final

from toska_gateway.worker.http1.fields import (
    REQUEST_SPECIAL,
    TOKEN_PREFIX,
    FieldMemo,
    connection_options,
    drop_fields,
)
from toska_gateway.worker.http1.grammar import CHUNKED, CRLF, TOKEN, BadMessage
from toska_gateway.worker.http1.targets import ABSOLUTE_FORM, is_host, known_hosts, read_path_and_query

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""RFC 9110 §9.2.2."""

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

ASTERISK: Final = b"*"
"""The target of an OPTIONS that asks about the server as a whole."""

_fields = FieldMemo(REQUEST_SPECIAL)


class RequestHead:
    """One request's head. `parts` holds the end-to-end field lines as they are passed on, each with its CRLF.

    The first part is the place of the request line, so that a head is built without moving the others.
    """

    __slots__ = (
        "body_length", "close", "escaped", "expect", "holds_token", "host", "http11", "method", "parts", "path",
        "plain", "query", "special", "upgrade",
    )  # fmt: skip

    method: bytes
    path: bytes  # decoded and normalised; what routes match and what is forwarded (encoded again); or ASTERISK
    escaped: bool  # the path holds escaped slashes, which only some routes take
    plain: bool  # the path came in its normal form and may travel as it is
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

    def copy(self) -> "RequestHead":
        """Another head of the same; what they refer to is the same too."""
        # Name by name: compiled, a class has no __slots__ to go through.
        other = RequestHead()
        other.body_length, other.close, other.expect = self.body_length, self.close, self.expect
        other.escaped, other.plain, other.holds_token = self.escaped, self.plain, self.holds_token
        other.host, other.http11, other.method = self.host, self.http11, self.method
        other.path, other.query, other.upgrade = self.path, self.query, self.upgrade
        other.parts, other.special = self.parts, self.special
        return other

    def field(self, name: bytes) -> bytes | None:
        """A field's value by lower-case name, members joined; for routes that match on headers."""
        # The colon first: it rules nearly all others out, at half the cost of looking at their names.
        end = len(name)
        found = [
            part[end + 2 : -2] for part in self.parts if part[end : end + 1] == b":" and part[:end].lower() == name
        ]
        found += self.special.get(name, ())
        return b", ".join(found) if found else None


def read_request(data: bytes, max_fields: int, max_target: int) -> RequestHead:
    """Read a request's head, which ends with its empty line.

    Raises:
        BadMessage: It is not HTTP/1.1 as the RFC has it, or over a limit.
    """
    lines = data.split(CRLF)
    try:
        method, target, version = lines[0].split(b" ")
    except ValueError:
        raise BadMessage(400, "bad-request-line", "a request line is a method, a target and a version") from None
    head = RequestHead()
    head.method = method
    head.http11 = http11 = version == b"HTTP/1.1"
    if not http11 and version != b"HTTP/1.0":
        raise _bad_version(version)
    if method not in METHODS:
        raise _bad_method(method)
    if len(target) > max_target:
        raise BadMessage(414, "target-too-long", f"the request target exceeds {max_target} bytes")
    if len(lines) > max_fields + 3:
        raise BadMessage(431, "too-many-headers", f"the request has more than {max_fields} header fields")
    head.holds_token = TOKEN_PREFIX in target
    special = head.special = _read_fields(head, lines)
    if target[:1] == b"/":
        head.path, head.query, head.escaped, head.plain = read_path_and_query(target)
    else:
        _read_other_form(head, target)
    hosts = special.get(b"host")
    if hosts is not None and len(hosts) == 1 and (known_hosts(hosts[0]) or is_host(hosts[0])):
        head.host = hosts[0]
    elif hosts is None and not http11:
        head.host = b""
    else:
        raise BadMessage(400, "bad-host", "a request has exactly one Host, a name or address with an optional port")
    head.close = not http11
    head.expect = False
    head.upgrade = b""
    head.body_length = 0
    if len(special) > 1 or hosts is None:
        _read_framing(head)
        if b"connection" in special:
            _read_connection(head)
        if b"expect" in special:
            head.expect = _expects_continue(head)
    return head


def _read_fields(head: RequestHead, lines: list[bytes]) -> dict[bytes, tuple[bytes, ...]]:
    """Set the parts of a head that is there in lines; returns what is special."""
    head.parts = parts = [b""]
    special: dict[bytes, tuple[bytes, ...]] = {}
    known, learn = _fields.get, _fields.learn
    for field in lines[1:-2]:
        entry = known(field)
        if entry is None:
            entry = learn(field)
            if entry is None:
                raise BadMessage(400, "bad-header", "a header field is malformed")
            if TOKEN_PREFIX in field:  # (such a line is not remembered)
                head.holds_token = True
        key, wire, value = entry
        if key is None:
            parts.append(wire)
        elif key in special:
            special[key] += (value,)
        else:
            special[key] = (value,)
    return special


def _bad_method(method: bytes) -> BadMessage:
    if TOKEN.fullmatch(method) is None:
        return BadMessage(400, "bad-request-line", "a request line starts with a method")
    if method == b"CONNECT":
        return BadMessage(501, "unknown-method", "this gateway is no forward proxy: CONNECT is not served")
    return BadMessage(501, "unknown-method", "this method is not known here")


def _bad_version(version: bytes) -> BadMessage:
    if re.fullmatch(rb"HTTP/[0-9](?:\.[0-9])?", version):
        return BadMessage(505, "unsupported-version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return BadMessage(400, "bad-request-line", "a request line ends with its HTTP version")


def _read_other_form(head: RequestHead, target: bytes) -> None:
    if target == ASTERISK and head.method == b"OPTIONS":
        head.path, head.query, head.escaped, head.plain = ASTERISK, b"", False, False
        return
    match = ABSOLUTE_FORM.fullmatch(target)
    if match is None:
        raise BadMessage(400, "bad-target", "a request target starts with /")
    # RFC 9112 §3.2: the target's authority replaces Host, which has to be a proper one all the same.
    hosts = head.special.get(b"host", ())
    if len(hosts) > 1 or (head.http11 and not hosts) or (hosts and not is_host(hosts[0])):
        raise BadMessage(400, "bad-host", "a request has exactly one Host, a name or address with an optional port")
    head.special[b"host"] = (match[2],)
    rest: bytes = match[3] or b""
    if not rest and head.method == b"OPTIONS":
        # RFC 9112 §3.2.4: of a URI without a path it asks about the server as a whole.
        head.path, head.query, head.escaped, head.plain = ASTERISK, b"", False, False
        return
    rest = rest if rest[:1] == b"/" else b"/" + rest
    head.path, head.query, head.escaped, head.plain = read_path_and_query(rest)


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
    if any(TOKEN.fullmatch(member) is None for member in members) or members.count(b"chunked") > 1:
        raise BadMessage(400, "bad-framing", "Transfer-Encoding is malformed")
    if members[-1] != b"chunked":
        raise BadMessage(400, "bad-framing", "the last transfer coding of a request is chunked (RFC 9112 §6.3)")
    raise BadMessage(501, "unknown-coding", "of the transfer codings, only chunked is served")


def _read_connection(head: RequestHead) -> None:
    options = connection_options(head.special[b"connection"])
    if options.close:
        head.close = True
    elif options.keep_alive and not head.http11:
        head.close = False
    # Only WebSocket-like switches: never h2c, never with a body (RFC 9110 §7.8 lets a server ignore Upgrade).
    if options.upgrade and head.http11 and head.body_length == 0 and head.method == b"GET":
        head.upgrade = b",".join(head.special.get(b"upgrade", ())).lower()
    if options.nominated:
        drop_fields(head.parts, options.nominated)


def _expects_continue(head: RequestHead) -> bool:
    value = b",".join(head.special[b"expect"]).lower()
    if value != b"100-continue":
        raise BadMessage(417, "unknown-expectation", "of the expectations, only 100-continue is served")
    return head.http11 and head.body_length != 0
