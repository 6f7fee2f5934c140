"""CORS: what pages of other origins may ask, and which answers they may read (the Fetch standard, §3.2 and §4.8).

OPTIONS with Origin and Access-Control-Request-Method    a preflight: answered here, the upstream never sees it
any other request with Origin                            goes on; its answer, whoever gives it, says who may read it
"""

from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.http1 import CRLF, RequestHead, ResponseHead
from toska_gateway.worker.http1.grammar import remember

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane

REQUESTED_METHOD: Final = b"access-control-request-method"
REQUESTED_HEADERS: Final = b"access-control-request-headers"
_ANY: Final = "*"
_PREFIX: Final = b"access-control-"
_VARY: Final = b"vary: origin\r\n"
_PREFLIGHT_VARY: Final = b"vary: origin, access-control-request-method, access-control-request-headers\r\n"
_SAFELISTED_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST"})
_LABEL: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_NAMED: Final = 64
"""Of a header that is not allowed so many bytes are told."""
_REMEMBERED: Final = 1024


def preflighted_method(head: RequestHead) -> bytes | None:
    """The method of the request that this one asks leave for, if it is a preflight."""
    if head.method != b"OPTIONS" or head.field(b"origin") is None:
        return None
    return head.field(REQUESTED_METHOD)


def announced_headers(head: RequestHead) -> frozenset[bytes]:
    """The names, lower-case, of the headers that a preflight asks leave for; their values it does not tell.

    What is no preflight announces nothing: it is answered by the upstream, so it has to fit the route as it stands.
    """
    if preflighted_method(head) is None:
        return frozenset()
    listed = head.field(REQUESTED_HEADERS) or b""
    return frozenset(name.strip(b" \t").lower() for name in listed.split(b",")) - {b""}


class Cors:
    """The rules of one route."""

    __slots__ = (
        "_answers",
        "_any_header",
        "_any_method",
        "_any_origin",
        "_credentials",
        "_expose",
        "_headers",
        "_known",
        "_methods",
        "_origins",
        "_private_network",
        "_wildcards",
    )  # fmt: skip

    def __init__(self, settings: dict[str, Any], route: str, plane: "Plane") -> None:
        origins: list[str] = settings["allow_origins"]
        self._any_origin = _ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins if "*" not in origin)
        self._wildcards = tuple(
            (scheme.encode() + b"://", host.encode())
            for scheme, _, host in (one.partition("://*") for one in origins if "://*" in one)
        )
        methods, headers = settings["allow_methods"], settings["allow_headers"]
        self._any_method, self._any_header = _ANY in methods, _ANY in headers
        self._methods = frozenset(method.encode() for method in methods) | _SAFELISTED_METHODS
        self._headers = frozenset(header.encode() for header in headers)
        self._private_network: bool = settings["allow_private_network"]
        self._credentials = b"access-control-allow-credentials: true\r\n" if settings["allow_credentials"] else b""
        self._expose = _line("access-control-expose-headers", settings["expose_headers"])
        self._answers = (
            _line("access-control-allow-methods", methods)
            + _line("access-control-allow-headers", headers)
            + b"access-control-max-age: %d\r\n" % settings["max_age"]
        )
        self._known: dict[bytes, bytes] = {}

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Answer a preflight; of another request note who may read the answer."""
        head = exchange.head
        origin = head.field(b"origin")
        if origin is None:
            if not self._any_origin:
                exchange.added += _VARY
            return True
        requested = head.field(REQUESTED_METHOD) if head.method == b"OPTIONS" else None
        if requested is not None:
            self._preflight(exchange, origin, requested)
            return False
        if exchange.upgrading and not self.allows(origin) and not _is_own(origin, exchange):
            # Browsers open WebSockets to anybody and leave it to the server to look at the origin.
            exchange.fail(403, "cors-denied", "pages of this origin may not open a connection here")
            return False
        lines = self._known.get(origin)
        if lines is None:
            lines = self.lines(origin)
            remember(self._known, origin, lines, _REMEMBERED)
        exchange.added += lines
        return True

    def shape(self, exchange: "Exchange", head: ResponseHead) -> None:
        """Take out what the upstream says about it: one rule holds, and two lines are worth as much as none."""
        parts = head.parts
        parts[1:] = [part for part in parts[1:] if part[:15].lower() != _PREFIX]

    def allows(self, origin: bytes) -> bool:
        """Whether pages of this origin may read answers."""
        if self._any_origin or origin in self._origins:
            return True
        return any(
            origin.startswith(scheme) and origin.endswith(host) and _is_below(origin[len(scheme) : -len(host)])
            for scheme, host in self._wildcards
        )

    def lines(self, origin: bytes) -> bytes:
        """Field lines of an answer to a request of this origin."""
        vary = b"" if self._any_origin else _VARY
        return self._allowance(origin) + self._expose + vary if self.allows(origin) else vary

    def _allowance(self, origin: bytes) -> bytes:
        allowed = b"*" if self._any_origin else origin
        return b"access-control-allow-origin: " + allowed + CRLF + self._credentials

    def _preflight(self, exchange: "Exchange", origin: bytes, requested: bytes) -> None:
        refusal = self._refusal(origin, requested, announced_headers(exchange.head))
        if refusal is not None:
            exchange.added += _PREFLIGHT_VARY
            exchange.fail(403, "cors-denied", refusal)
            return
        lines = self._allowance(origin) + self._answers
        if self._private_network and exchange.head.field(b"access-control-request-private-network") == b"true":
            lines += b"access-control-allow-private-network: true\r\n"
        exchange.added += lines + _PREFLIGHT_VARY
        exchange.answer(204, "", b"")

    def _refusal(self, origin: bytes, method: bytes, headers: frozenset[bytes]) -> str | None:
        if not self.allows(origin):
            return "pages of this origin may not ask here"
        if not self._any_method and method not in self._methods:
            return "pages of other origins may not use this method here"
        unknown = () if self._any_header else sorted(headers - self._headers)
        if unknown:
            return f"pages of other origins may not send {unknown[0][:_NAMED].decode('latin-1')} here"
        return None


def _line(name: str, members: list[str]) -> bytes:
    return f"{name}: {', '.join(members)}\r\n".encode() if members else b""


def _is_below(label: bytes) -> bool:
    # What stands for the star: labels of a name, and nothing that could hide another host.
    return label != b"" and all(char in _LABEL for char in label)


def _is_own(origin: bytes, exchange: "Exchange") -> bool:
    return origin.partition(b"://")[2].lower() == exchange.head.host.lower()
