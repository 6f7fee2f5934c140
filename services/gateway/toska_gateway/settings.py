"""Everything that an operator can set for a gateway."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict
from toska_common.settings import ServiceSettings, registry_http_url
from toska_common.units import Duration

from toska_gateway.listeners import ListenerAddress, parse_listener


def _default_workers() -> int:
    return min(4, os.cpu_count() or 1)


class Settings(ServiceSettings):
    """Settings of the gateway; the shared ones (`TOSKA_HOME`, `TOSKA_HOST`, …) are those of every service."""

    model_config = SettingsConfigDict(env_prefix="TOSKA_GATEWAY_")

    port: int = Field(default=8080, ge=0, le=65535, description="Port of the data listener; 0 takes a free one")
    admin_port: int = Field(default=8100, ge=0, le=65535, description="Port of the admin API")
    admin_host: str | None = Field(default=None, description="Address of the admin API; default: TOSKA_HOST")
    workers: int = Field(default_factory=_default_workers, ge=1, le=64, description="Processes that move requests")
    router_url: str = Field(default="http://127.0.0.1:8102", description="Where snapshots come from")
    discovery_url: str = Field(default="http://127.0.0.1:8101", description="Discovery's REST API")
    events_api_url: str = Field(default="http://127.0.0.1:8108", description="The events service's API")
    embedded_registry_url: str = Field(
        default="http://127.0.0.1:8500", description="Discovery's Consul API, for TOSKA_REGISTRY_URL=embedded://"
    )
    serve_management: bool = Field(
        default=False,
        description="Serve the mesh's APIs and docs on the data listener although it is not on loopback",
    )
    advertise_address: str | None = Field(
        default=None,
        validation_alias="TOSKA_ADVERTISE_ADDRESS",
        description="Address under which others reach this gateway; default: the bound one",
    )
    listen: Annotated[tuple[ListenerAddress, ...], NoDecode] = Field(
        default=(),
        description="Every data listener, comma-separated: host:port, http://…, https://… or unix:/path, instead of "
        "TOSKA_HOST and TOSKA_GATEWAY_PORT",
    )
    tls_folder: Path | None = Field(
        default=None,
        description="Where relative paths of certificates and keys begin; default: the routing file's folder, or the "
        "working directory",
    )
    routes: Path | None = Field(
        default=None, description="Serve this routing file alone, without a mesh; nothing is reserved then"
    )
    cache_url: SecretStr = Field(
        default=SecretStr("memory://"),
        validation_alias="TOSKA_CACHE_URL",
        description="What gateways share, such as rate limits at mesh scope: memory:// (of this machine) or "
        "redis[s]://[[user]:password@]host[:port][/database]",
    )
    filters_path: Path | None = Field(
        default=None,
        validation_alias="TOSKA_FILTERS_PATH",
        description="Where the Python modules of filters are that are not installed; default: the working directory",
    )
    zone: str = Field(
        default="",
        max_length=64,
        validation_alias="TOSKA_ZONE",
        description="Where this gateway runs: clusters with zone: local prefer endpoints there",
    )
    report_interval: Duration = Field(
        default=timedelta(seconds=5),
        ge=timedelta(milliseconds=50),
        description="How often the router is told what requests to each endpoint came to, for /api/v1/select",
    )
    drain_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="How long requests in flight and tunnels may take once their worker has a successor",
    )
    engine: Literal["python", "envoy"] = Field(
        default="python",
        description="The data plane: our own workers, or Envoy (extra envoy), which speaks HTTP/2 and gRPC, too",
    )

    @field_validator("router_url", "discovery_url", "events_api_url", "embedded_registry_url")
    @classmethod
    def _plain_base(cls, value: str) -> str:
        parts = urlsplit(value)
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{value!r} has no valid port") from error
        if parts.scheme != "http" or not parts.hostname or port is None:
            raise ValueError(f"{value!r} is not of the form http://host:port")
        if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"{value!r} has more than scheme, host and port")
        return value.rstrip("/")

    @field_validator("listen", mode="before")
    @classmethod
    def _read_listeners(cls, value: Any) -> Any:
        parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        return tuple(parse_listener(part) if isinstance(part, str) else part for part in parts)

    @field_validator("listen")
    @classmethod
    def _each_once(cls, value: tuple[ListenerAddress, ...]) -> tuple[ListenerAddress, ...]:
        places = [(one.host, one.port, one.path) for one in value if one.port or one.path]
        if len(places) != len(set(places)):
            raise ValueError("an address stands twice")
        return value

    @field_validator("routes")
    @classmethod
    def _readable_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_file():
            raise ValueError(f"{value} is not a file")
        return None if value is None else value.expanduser().absolute()

    @field_validator("filters_path")
    @classmethod
    def _readable_folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_dir():
            raise ValueError(f"{value} is not a folder")
        return None if value is None else value.expanduser().absolute()

    @field_validator("cache_url")
    @classmethod
    def _known_cache(cls, value: SecretStr) -> SecretStr:
        # What is wrong is said without the value: there may be a password in it.
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in {"memory", "redis", "rediss"}:
            raise ValueError("write memory://, redis://host:port/0, or rediss:// for TLS")
        if parts.scheme != "memory":
            try:
                _ = parts.port
            except ValueError:
                raise ValueError("its port is no number from 0 to 65535") from None
            if not parts.hostname:
                raise ValueError("it names no host")
            if not re.fullmatch(r"/?\d*", parts.path):
                raise ValueError("its path is the number of a database, as in redis://host:6379/0")
        return value

    @field_validator("admin_port")
    @classmethod
    def _own_port(cls, value: int, info: ValidationInfo) -> int:
        if value and value == info.data.get("port"):
            raise ValueError(f"{value} is already the data listener's port; the two listeners need two ports")
        return value

    @property
    def management_on_data_listener(self) -> bool:
        """Whether the mesh's own APIs and docs are served beside users' services."""
        return self.routes is None and (self.data_is_local or self.serve_management)

    @property
    def listeners(self) -> tuple[ListenerAddress, ...]:
        """Every data listener."""
        return self.listen or (ListenerAddress(self.host, self.port),)

    @property
    def data_address(self) -> tuple[str, int]:
        """The first data listener that has a port; an empty host if all are Unix sockets."""
        return next(((one.host, one.port) for one in self.listeners if not one.path), ("", 0))

    @property
    def data_is_local(self) -> bool:
        """Whether only this machine reaches the data listeners."""
        return all(listener.is_local for listener in self.listeners)

    @property
    def certificates_folder(self) -> Path:
        """Where relative paths of certificates and keys begin."""
        if self.tls_folder is not None:
            return self.tls_folder.expanduser().absolute()
        return self.routes.parent if self.routes is not None else Path.cwd()

    @property
    def filters_folder(self) -> Path:
        """Where modules of filters are looked for."""
        return self.filters_path or Path.cwd()

    @property
    def bound_admin_host(self) -> str:
        """The address that the admin listener binds."""
        return self.admin_host or self.host

    @property
    def registry_api_url(self) -> str:
        """Base URL of the registry's Consul HTTP API."""
        return registry_http_url(self.registry_url, self.embedded_registry_url)
