"""What the environment says of a service's sagas."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from toska_common.database.location import check_database_url
from toska_common.units import Duration


class SagaSettings(BaseSettings):
    """`TOSKA_SAGAS_…`, with the home and the database that all services are told of."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_ignore_empty=True, populate_by_name=True, env_prefix="TOSKA_SAGAS_"
    )

    home: Path = Field(
        default=Path(".toska"), validation_alias="TOSKA_HOME", description="Where SQLite's file lives, for embedded://"
    )
    database_url: SecretStr = Field(
        default=SecretStr("embedded://"),
        validation_alias="TOSKA_DATABASE_URL",
        description="embedded:// (SQLite in the home), sqlite:///a/folder, or postgresql://user:password@host/database",
    )
    lease: Duration = Field(
        default=timedelta(seconds=15),
        description="How long a process that was not heard of keeps its sagas, before another one goes on with them",
    )
    concurrency: int = Field(default=100, ge=1, description="Attempts that one process makes at a time; others wait")
    stopping: Duration = Field(
        default=timedelta(seconds=2), description="How long steps may take to end when the process stops"
    )
    keep: Duration = Field(
        default=timedelta(days=30), description="How long sagas that have ended, and their ids, are remembered"
    )
    token: SecretStr = Field(default=SecretStr(""), description="Credential of the management API")
    token_file: Path | None = Field(default=None, description="File that holds it; else admin.token of the home")

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr) -> SecretStr:
        check_database_url(value.get_secret_value())
        return value

    @field_validator("lease")
    @classmethod
    def _long_enough(cls, value: timedelta) -> timedelta:
        if value < timedelta(milliseconds=500):
            raise ValueError("must be at least 500ms")
        return value
