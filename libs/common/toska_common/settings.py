"""Settings from the environment, with errors that name the variable, the reason and the remedy.

Only a process's `__main__` (or the all-in-one host) reads the environment; everything else is handed what it needs.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from toska_common.clients.registry_tls import RegistryTls
from toska_common.credentials import Credentials, ensure_credentials
from toska_common.database.location import check_database_url
from toska_common.errors import ConfigurationError
from toska_common.events.location import check_events_url
from toska_common.lists import CommaSeparated

S = TypeVar("S", bound=BaseSettings)

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\]")

LogFormat = Literal["auto", "json", "text"]


class ServiceSettings(BaseSettings):
    """What every service of the mesh can be told; subclasses add their own under a prefix of their own.

    The shared ones are read as `TOSKA_HOME`, `TOSKA_REGISTRY_URL` and so on, whatever the subclass's prefix is.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True, populate_by_name=True)

    home: Path = Field(
        default=Path(".toska"), validation_alias="TOSKA_HOME", description="Where state lives; made 0700"
    )
    host: str = Field(default="127.0.0.1", validation_alias="TOSKA_HOST", description="Address that listeners bind")
    registry_url: str = Field(
        default="embedded://",
        validation_alias="TOSKA_REGISTRY_URL",
        description="embedded:// (discovery's own registry), consul[+tls]://host:port, or the http(s) URL of either",
    )
    registry_ca: Path | None = Field(
        default=None, validation_alias="TOSKA_REGISTRY_CA", description="Authorities to believe a registry with TLS by"
    )
    registry_certificate: Path | None = Field(
        default=None, validation_alias="TOSKA_REGISTRY_CERTIFICATE", description="What to show to one that asks"
    )
    registry_key: Path | None = Field(
        default=None, validation_alias="TOSKA_REGISTRY_KEY", description="Its key, if that is a file of its own"
    )
    registry_token: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="TOSKA_REGISTRY_TOKEN",
        description="ACL token for a Consul cluster; the embedded registry takes the mesh's own tokens",
    )
    database_url: SecretStr = Field(
        default=SecretStr("embedded://"),
        validation_alias="TOSKA_DATABASE_URL",
        description="embedded:// (SQLite in the home), sqlite:///a/folder, or postgresql://user:password@host/database",
    )
    events_url: SecretStr = Field(
        default=SecretStr("embedded://"),
        validation_alias="TOSKA_EVENTS_URL",
        description="embedded:// (the log of this machine's mesh), amqp(s)://user:password@host:5672/vhost, or redis://host",
    )
    admin_token: SecretStr = Field(
        default=SecretStr(""), validation_alias="TOSKA_ADMIN_TOKEN", description="Overrides admin.token in the home"
    )
    join_token: SecretStr = Field(
        default=SecretStr(""), validation_alias="TOSKA_JOIN_TOKEN", description="Overrides join.token in the home"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, CommaSeparated] = Field(
        default=(),
        validation_alias="TOSKA_ALLOWED_HOSTS",
        description="Further Host names of the management listeners, comma-separated",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", validation_alias="TOSKA_LOG_LEVEL")
    log_format: LogFormat = Field(
        default="auto", validation_alias="TOSKA_LOG_FORMAT", description="auto: text on a terminal, else json"
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _HOST_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a host name; write names without ports, separated by commas")
        return value

    @field_validator("registry_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"embedded", "consul", "consul+tls", "http", "https"}:
            raise ValueError("write embedded://, consul://host:port, consul+tls://host:port or an http(s) URL")
        if parts.scheme != "embedded" and not parts.hostname:
            raise ValueError(f"{value!r} names no host")
        return value.rstrip("/") if parts.scheme != "embedded" else value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr) -> SecretStr:
        check_database_url(value.get_secret_value())
        return value

    @field_validator("events_url")
    @classmethod
    def _known_events(cls, value: SecretStr) -> SecretStr:
        check_events_url(value.get_secret_value())
        return value

    def credentials(self) -> Credentials:
        """The mesh's tokens: as set, else those of the home, which are made at the first start."""
        admin, join = self.admin_token.get_secret_value(), self.join_token.get_secret_value()
        if admin and join:
            return Credentials(admin=admin, join=join)
        kept = ensure_credentials(self.home)
        return Credentials(admin=admin or kept.admin, join=join or kept.join)

    def registry_access(self) -> str:
        """The token for the registry's API: its own ACL token, or the mesh's admin token for one on this machine."""
        token = self.registry_token.get_secret_value()
        parts = urlsplit(self.registry_url)
        # A Consul elsewhere has no use for the mesh's tokens and must not be told them.
        own = parts.scheme == "embedded" or (parts.hostname or "") in {"localhost", "127.0.0.1", "::1"}
        return self.credentials().admin if own and not token else token

    @property
    def registry_tls(self) -> RegistryTls:
        """TLS towards the registry."""
        return RegistryTls(self.registry_ca, self.registry_certificate, self.registry_key)

    @classmethod
    def from_environment(cls, **overrides: Any) -> Self:
        """Read and check the settings; overrides come from a command line.

        Raises:
            ConfigurationError: Lists every wrong setting with its variable and the reason.
        """
        return load_settings(cls, **overrides)


def load_settings(kind: type[S], **overrides: Any) -> S:
    """Read `kind` from the environment, with `overrides` on top.

    Raises:
        ConfigurationError: Lists every wrong setting with its variable and the reason.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        lines = [f"{_variable(kind, entry['loc'])}: {entry['msg']}" for entry in error.errors()]
        raise ConfigurationError("; ".join(lines)) from error
    except ValueError as error:  # pydantic-settings wraps what it cannot parse, such as broken JSON in a list
        raise ConfigurationError(str(error)) from error


def _variable(kind: type[BaseSettings], location: tuple[int | str, ...]) -> str:
    head = str(location[0]) if location else "settings"
    if head.isupper():
        return head
    return f"{kind.model_config.get('env_prefix', '')}{head}".upper()


def prepare_home(home: Path) -> Path:
    """Make the state folder, mode 0700, and prove that it can be written.

    Raises:
        ConfigurationError: It cannot be made or written.
    """
    home = home.expanduser().absolute()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = home / f".write-probe.{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(
            f"cannot write the state folder {home} ({reason}); set TOSKA_HOME to a folder that you own"
        ) from error
    return home


def registry_http_url(registry_url: str, embedded: str) -> str:
    """The HTTP base URL behind `TOSKA_REGISTRY_URL`; `embedded` is where discovery's own registry listens."""
    parts = urlsplit(registry_url)
    if parts.scheme == "embedded":
        return embedded
    scheme = {"consul": "http", "consul+tls": "https"}.get(parts.scheme)
    return registry_url if scheme is None else f"{scheme}://{parts.netloc}"
