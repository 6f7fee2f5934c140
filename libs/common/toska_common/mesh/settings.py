"""What the environment says to an app that joins a mesh; what the app says itself, in `Mesh(...)`, comes first."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from toska_common.contracts.names import Host
from toska_common.contracts.profile import Word
from toska_common.events.location import check_events_url
from toska_common.lists import AreNetworks, CommaSeparated
from toska_common.settings import LogFormat, load_settings
from toska_common.units import Duration


class MeshSettings(BaseSettings):
    """The `TOSKA_…` variables of an app; all optional."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True, env_prefix="TOSKA_")

    join: bool = Field(default=True, description="Whether to register at all")
    registry_url: str = Field(
        default="", description="http(s) URL or consul://host:port of the registry; the mesh of this machine if empty"
    )
    registry_ca: Path | None = Field(default=None, description="Authorities to believe a registry with TLS by")
    registry_certificate: Path | None = Field(default=None, description="What to show to one that asks")
    registry_key: Path | None = Field(default=None, description="Its key, if that is a file of its own")
    events_url: SecretStr = Field(
        default=SecretStr("embedded://"),
        description="embedded:// (the log of this machine's mesh), amqp(s)://user:password@host:5672/vhost, or redis://host",
    )
    join_token: SecretStr = Field(default=SecretStr(""), description="Credential to register with")
    join_token_file: Path | None = Field(default=None, description="File that holds it")
    advertise_address: Host | None = Field(default=None, description="Address that others reach this app at")
    advertise_port: int | None = Field(default=None, ge=1, le=65535, description="Port that others reach this app at")
    expose: bool | None = Field(default=None, description="Whether the gateway gives this app a route /NAME/…")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, CommaSeparated, AreNetworks] = Field(
        default=(), description="Networks, besides loopback, whose X-Forwarded-Prefix is believed, comma-separated"
    )
    region: Word | None = Field(default=None, description="Where this app runs, for callers that look for near ones")
    zone: Word | None = Field(default=None, description="Likewise, more exactly")
    lease_ttl: Duration = Field(default=timedelta(seconds=15), description="Life of an unrenewed lease")
    drain_delay: Duration = Field(
        default=timedelta(milliseconds=500), description="Time between leaving the mesh and closing the listener"
    )
    shutdown_grace: Duration = Field(
        default=timedelta(seconds=10),
        description="How long requests in flight may then take; event streams end at once",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: LogFormat = "auto"

    @field_validator("registry_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://", "consul://", "consul+tls://", "embedded://")):
            raise ValueError("write an http(s) URL, consul://host:port, consul+tls://host:port or embedded://")
        return value.rstrip("/") if "://" in value and not value.endswith("://") else value

    @field_validator("events_url")
    @classmethod
    def _known_events(cls, value: SecretStr) -> SecretStr:
        check_events_url(value.get_secret_value())
        return value

    @field_validator("lease_ttl")
    @classmethod
    def _long_enough(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("must be at least 1s")
        return value

    @classmethod
    def from_environment(cls, **given: Any) -> "MeshSettings":
        """Read the environment, with what was `given` in code on top; a value of `None` was not given.

        Raises:
            ConfigurationError: Lists every wrong setting with its variable and the reason.
        """
        return load_settings(cls, **{key: value for key, value in given.items() if value is not None})
