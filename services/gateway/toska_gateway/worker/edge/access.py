"""Who is served: by address, and by the way they come; the client's own, also behind trusted proxies."""

from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.edge.networks import Networks, read_address
from toska_gateway.worker.edge.rewriting import bare_authority
from toska_gateway.worker.http1 import ASTERISK, CRLF, encode_path
from toska_gateway.worker.http1.grammar import remember

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane

_UNIX: Final = "unix:"
_UNIX_CLIENT: Final = b"unix"
_REMEMBERED: Final = 8192
_HTTPS_PORT: Final = 443


class IpRules:
    """The addresses that a route serves. A verdict is remembered, so most requests cost one look-up."""

    __slots__ = ("_allow", "_allow_unix", "_deny", "_deny_unix", "_verdicts")

    def __init__(self, settings: dict[str, Any], route: str, plane: "Plane") -> None:
        allow, deny = settings["allow"], settings["deny"]
        self._allow = Networks(one for one in allow if one != _UNIX) if allow else None
        self._deny = Networks(one for one in deny if one != _UNIX)
        self._allow_unix = not allow or _UNIX in allow
        self._deny_unix = _UNIX in deny
        self._verdicts: dict[bytes, bool] = {}

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Let the request pass, or answer 403."""
        client = exchange.down.forwarding.client(exchange.head)
        verdict = self._verdicts.get(client)
        if verdict is None:
            verdict = self.serves(client)
            remember(self._verdicts, client, verdict, _REMEMBERED)
        if not verdict:
            exchange.fail(403, "ip-denied", "this route does not serve your address")
        return verdict

    def serves(self, client: bytes) -> bool:
        """Whether this client is served; what is no address is not, since nobody knows whose it is."""
        if client == _UNIX_CLIENT:
            return self._allow_unix and not self._deny_unix
        address = read_address(client.decode("latin-1"))
        if address is None or address in self._deny:
            return False
        return self._allow is None or address in self._allow


class HttpsRequired:
    """Sends those who come over plain HTTP to https, or away."""

    __slots__ = ("_port", "_refuses")

    def __init__(self, settings: dict[str, Any], route: str, plane: "Plane") -> None:
        port: int = settings["port"]
        self._port = b"" if port == _HTTPS_PORT else b":%d" % port
        self._refuses = settings["otherwise"] == "refuse"

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Let the request pass if it came over TLS."""
        head = exchange.head
        if exchange.down.forwarding.scheme_of(head) == b"https":
            return True
        host = bare_authority(head.host)
        if self._refuses or not host or head.path == ASTERISK:
            exchange.fail(403, "https-only", "this route is served over https only")
            return False
        place = b"https://" + host + self._port + encode_path(head.path) + head.query
        exchange.answer(308, "text/plain; charset=utf-8", b"", extra=b"location: " + place + CRLF)
        return False
