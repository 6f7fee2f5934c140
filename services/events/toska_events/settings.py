"""Everything an operator can set for the events service."""

from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import NoDecode, SettingsConfigDict
from toska_common.events.transport import DEFAULT_MAX_BYTES
from toska_common.lists import AreNetworks, CommaSeparated
from toska_common.security import is_loopback
from toska_common.settings import ServiceSettings, registry_http_url
from toska_common.targets import LOOPBACK
from toska_common.units import Duration, Size


class Settings(ServiceSettings):
    """Settings of the events service; `TOSKA_EVENTS_URL` is one of those that every service has."""

    model_config = SettingsConfigDict(env_prefix="TOSKA_EVENTS_")

    port: int = Field(default=8108, ge=0, le=65535, description="Port of the API")
    grpc_port: int = Field(default=18108, ge=-1, le=65535, description="Of the gRPC service; -1 for none")
    fsync: Literal["full", "normal"] = Field(
        default="full",
        description="full: what is confirmed survives a loss of power; normal: it survives the death of any process, "
        "and a loss of power may cost the last seconds",
    )
    max_bytes: Size = Field(default=1 << 30, ge=16 << 20, description="What the log may grow to on its disk")
    max_age: Duration = Field(
        default=timedelta(days=7), gt=timedelta(), description="Events that every group has had are forgotten after it"
    )
    max_event_bytes: Size = Field(
        default=DEFAULT_MAX_BYTES, ge=1024, le=16 << 20, description="Most bytes of one event's data"
    )
    retention_interval: Duration = Field(
        default=timedelta(seconds=30), gt=timedelta(), description="How often is looked for what may be forgotten"
    )
    stream_heartbeat: Duration = Field(
        default=timedelta(seconds=15), gt=timedelta(), description="A quiet stream of events shows this often it lives"
    )
    stream_patience: Duration = Field(
        default=timedelta(seconds=20),
        gt=timedelta(),
        description="Whoever reads a stream and takes nothing for so long is dropped",
    )
    max_streams: int = Field(default=1000, ge=1, description="Most readers of streams at a time")
    webhook_origin: str = Field(
        default="toska-events",
        pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$",
        description="The DNS name that receivers of webhooks are asked by for their agreement",
    )
    webhook_deny: Annotated[Annotated[tuple[str, ...], CommaSeparated, AreNetworks] | None, NoDecode] = Field(
        default=None,
        description="Networks that no webhook leads to, comma-separated; loopback by default, unless this service is "
        "on loopback itself. Link-local addresses and the mesh's own are never led to",
    )
    embedded_registry_url: str = Field(
        default="http://127.0.0.1:8500", description="Where embedded:// is: discovery's Consul HTTP API"
    )
    advertise_address: str = Field(
        default="", validation_alias="TOSKA_ADVERTISE_ADDRESS", description="Registered as toska-events' address"
    )

    @property
    def webhook_forbidden(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Networks that no webhook leads to."""
        if self.webhook_deny is None:
            return () if is_loopback(self.host) else LOOPBACK
        return tuple(map(ip_network, self.webhook_deny))

    @property
    def is_embedded(self) -> bool:
        """Whether the events of this mesh are in a log of this service's own."""
        return self.events_url.get_secret_value().startswith("embedded://")

    @property
    def registry_api_url(self) -> str:
        """Base URL of the registry's Consul HTTP API."""
        return registry_http_url(self.registry_url, self.embedded_registry_url)
