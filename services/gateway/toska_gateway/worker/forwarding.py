"""What an upstream is told about who asked: X-Forwarded-*, X-Real-IP, Forwarded (RFC 7239) and Via.

What a client says of itself in these fields is dropped, unless the client is a trusted proxy: then the chain goes on.
"""

from itertools import islice
from typing import TYPE_CHECKING, Final

from toska_gateway.worker.http1 import CRLF, BadMessage, RequestHead, encode_path

if TYPE_CHECKING:
    from toska_gateway.worker.plane import Plane

_MAX_HOPS: Final = 20
"""Of a chain so many addresses are looked at; each costs a microsecond, and a client writes as many as it likes."""


class Forwarding:
    """The fields of one client connection: the same for all its requests, but for the host."""

    __slots__ = ("_host", "_lines", "_plane", "peer", "rate_keys", "scheme", "trusted")

    def __init__(self, plane: "Plane", peer: str, scheme: bytes) -> None:
        self._plane = plane
        self.peer = peer.encode()
        self.scheme = scheme
        self.trusted = plane.trusts(peer)
        self._host: bytes | None = None  # (an HTTP/1.0 request may come with an empty one)
        self._lines = b""
        self.rate_keys: dict[bytes, int] = {}  # whose allowances this connection takes from, by limit

    def lines(self, head: RequestHead) -> bytes:
        """Field lines in wire form.

        Raises:
            BadMessage: The request has been here before, status 508.
        """
        via = head.special.get(b"via")
        if via is not None and self._plane.via.passed_here(via):
            raise BadMessage(508, "loop-detected", "this request has come through this gateway before")
        if self.trusted:
            return self._continued(head)
        if head.host != self._host or not head.http11:
            self._host = head.host if head.http11 else None
            self._lines = b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n" % (
                self.peer,
                self.scheme,
                head.host,
            ) + b"x-real-ip: %b\r\nforwarded: %b\r\nvia: %b\r\n" % (self.peer, self._element(head), self._via(head))
        return self._lines if via is None else b"via: " + b", ".join(via) + CRLF + self._lines

    def prefix(self, head: RequestHead, prefix: bytes) -> tuple[bytes, ...]:
        """The field that says what was taken off the path, here and by the trusted proxies before."""
        given = head.special.get(b"x-forwarded-prefix") if self.trusted else None
        whole = (b"" if given is None else given[-1].rstrip(b"/")) + encode_path(prefix)
        return (b"x-forwarded-prefix: " + whole + CRLF,) if whole else ()

    def scheme_of(self, head: RequestHead) -> bytes:
        """By which scheme the client came: to us, or to the first of the trusted proxies."""
        told = head.special.get(b"x-forwarded-proto") if self.trusted else None
        return self.scheme if told is None else told[-1].lower()

    def _via(self, head: RequestHead) -> bytes:
        return self._plane.via.member if head.http11 else self._plane.via.member_10

    def _element(self, head: RequestHead) -> bytes:
        """This hop in the words of RFC 7239."""
        peer = self.peer
        if b":" in peer:
            peer = b'"[' + peer + b']"'
        elif peer == b"unix":
            peer = b"unknown"
        host = b'host="%b";' % head.host if head.host else b""
        return b"for=%b;%bproto=%b" % (peer, host, self.scheme)

    def _continued(self, head: RequestHead) -> bytes:
        special = head.special
        chain = b", ".join((*special.get(b"x-forwarded-for", ()), self.peer))
        scheme = special.get(b"x-forwarded-proto", (self.scheme,))[-1]
        host = special.get(b"x-forwarded-host", (head.host,))[-1]
        lines = b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n" % (chain, scheme, host)
        forwarded = b", ".join((*special.get(b"forwarded", ()), self._element(head)))
        via = b", ".join((*special.get(b"via", ()), self._via(head)))
        lines += b"x-real-ip: %b\r\nforwarded: %b\r\nvia: %b\r\n" % (self.client(head), forwarded, via)
        for value in special.get(b"x-forwarded-port", ()):
            lines += b"x-forwarded-port: " + value + CRLF
        return lines

    def client(self, head: RequestHead) -> bytes:
        """Who asked: the peer, or who asked the first of the trusted proxies, by the last address that is none."""
        if not self.trusted:
            return self.peer
        special = head.special
        given = special.get(b"x-forwarded-for")
        if given is None:
            return special.get(b"x-real-ip", (self.peer,))[-1]
        hop = self.peer
        for member in islice(reversed(b",".join(given).split(b",")), _MAX_HOPS):
            hop = _without_port(member.strip(b" \t"))
            if not self._plane.trusts(hop.decode("latin-1")):
                break
        return hop


def _without_port(hop: bytes) -> bytes:
    """An address alone: some proxies append the port, and each connection would be a client of its own."""
    if hop[:1] == b"[":
        return hop[1:].partition(b"]")[0]
    return hop.partition(b":")[0] if hop.count(b":") == 1 else hop
