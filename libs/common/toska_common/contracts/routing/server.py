"""The listeners' own settings."""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from toska_common.contracts import Document
from toska_common.contracts.names import UNIX_PREFIX
from toska_common.contracts.routing.caching import CacheMemory
from toska_common.contracts.routing.seeing import AccessLog, Tracing
from toska_common.contracts.tls import ServerTls
from toska_common.units import Duration, Size


class ServerLimits(Document):
    """Bounds of what a client may send."""

    header_bytes: Size = Field(default=65536, ge=1024)
    headers: int = Field(default=100, ge=1)
    target_bytes: Size = Field(default=8192, ge=64)
    body_bytes: Size = Field(default=0, ge=0, description="0 is unbounded")
    header_timeout: Duration = timedelta(seconds=10)
    body_timeout: Duration = Field(default=timedelta(seconds=30), description="Between two bytes of a request body")
    idle_timeout: Duration = Field(default=timedelta(seconds=75), description="Between two requests of a connection")
    handshake_timeout: Duration = Field(
        default=timedelta(seconds=10), description="For a PROXY header and a TLS handshake together"
    )
    connections: int = Field(default=10_000, ge=1, description="Per worker")
    connections_per_client: int = Field(default=1_000, ge=1, description="Per worker and client address")


def _network(value: str) -> str:
    from ipaddress import ip_network

    ip_network(value)
    return value


Network = Annotated[str, AfterValidator(_network)]
TrustedPeer = Annotated[str, AfterValidator(lambda value: value if value == UNIX_PREFIX else _network(value))]


class ProxyProtocol(Document):
    """Load balancers that say in front of each connection for whom it is (the PROXY protocol, versions 1 and 2).

    Every TCP listener then waits for that, and refuses connections from anybody else.
    """

    trusted_peers: tuple[Network, ...] = Field(min_length=1, description="Networks of the load balancers, as CIDR")


class Server(Document):
    """The listeners' own settings."""

    trusted_proxies: tuple[TrustedPeer, ...] = Field(
        default=(), description="Networks whose X-Forwarded-* is believed, as CIDR; unix: is whoever comes by a socket"
    )
    limits: ServerLimits = ServerLimits()
    tls: ServerTls | None = Field(
        default=None, description="Listeners without a scheme speak TLS then, and https:// do"
    )
    proxy_protocol: ProxyProtocol | None = None
    access_log: AccessLog | None = None
    tracing: Tracing | None = None
    cache: CacheMemory = CacheMemory()
