"""Everything that an operator can set for the router."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict
from toska_common.database import DatabaseLocation, parse_location
from toska_common.settings import ServiceSettings, registry_http_url
from toska_common.units import Duration


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text.strip()!r} is no address: write host:port")
    return host.strip("[]"), int(port)


class Settings(ServiceSettings):
    """Settings of the router; the shared ones (`TOSKA_HOME`, `TOSKA_HOST`, …) are those of every service."""

    model_config = SettingsConfigDict(env_prefix="TOSKA_ROUTER_")

    port: int = Field(default=8102, ge=0, le=65535, description="Port of the API")
    routes: Path | None = Field(default=None, description="A routing file (YAML), read again when it changes")
    routes_interval: Duration = Field(
        default=timedelta(seconds=1), gt=timedelta(), description="How often the routing file is looked at"
    )
    rollout_interval: Duration = Field(
        default=timedelta(seconds=1),
        gt=timedelta(),
        description="How often the router that leads looks at rollouts and experiments",
    )
    embedded_registry_url: str = Field(
        default="http://127.0.0.1:8500", description="Where embedded:// is: discovery's Consul HTTP API"
    )
    registry_grace: Duration = Field(
        default=timedelta(seconds=20),
        ge=timedelta(),
        description="How long instances that the registry has lost while it was away are kept after it is back",
    )
    advertise_address: str = Field(
        default="", validation_alias="TOSKA_ADVERTISE_ADDRESS", description="Registered as toska-router's address"
    )

    xds: bool = Field(default=False, description="Whether Envoys and gRPC clients are programmed over xDS v3")
    xds_port: int = Field(default=18000, ge=0, le=65535, description="Port of xDS; bound to TOSKA_HOST")
    xds_listen: Annotated[tuple[tuple[str, int], ...], NoDecode] = Field(
        default=(("127.0.0.1", 10000),), description="Where Envoys are told to listen: host:port, comma-separated"
    )
    xds_certificate: Path | None = Field(default=None, description="PEM; xDS is served over TLS then")
    xds_key: Path | None = Field(default=None, description="Key of the certificate")
    xds_client_ca: Path | None = Field(
        default=None, description="Clients of xDS show a certificate of this authority; they need no token then"
    )
    xds_load_interval: Duration = Field(
        default=timedelta(),
        ge=timedelta(),
        description="How often Envoys and gRPC clients report what they send, at least 1s; 0s: they do not",
    )

    @field_validator("xds_listen", mode="before")
    @classmethod
    def _split_addresses(cls, value: Any) -> Any:
        return tuple(map(_address, value.split(","))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        if (self.xds_certificate is None) != (self.xds_key is None):
            raise ValueError("TOSKA_ROUTER_XDS_CERTIFICATE and TOSKA_ROUTER_XDS_KEY go together")
        if self.xds_client_ca is not None and self.xds_certificate is None:
            raise ValueError(
                "TOSKA_ROUTER_XDS_CLIENT_CA needs TOSKA_ROUTER_XDS_CERTIFICATE: there is no TLS without it"
            )
        return self

    @field_validator("xds_load_interval")
    @classmethod
    def _not_too_often(cls, value: timedelta) -> timedelta:
        if timedelta() < value < timedelta(seconds=1):
            raise ValueError("is 0s, or at least 1s: gRPC's clients report no more often")
        return value

    @field_validator("routes")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @property
    def database_location(self) -> DatabaseLocation:
        """Where the API's routes, clusters and policies are kept."""
        return parse_location(self.database_url.get_secret_value(), service="router", home=self.home)

    @property
    def registry_api_url(self) -> str:
        """Base URL of the registry's Consul HTTP API."""
        return registry_http_url(self.registry_url, self.embedded_registry_url)
