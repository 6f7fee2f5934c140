"""What a service says of itself when it registers, beyond where it is, and how that travels in instance metadata.

Consul has no fields for it, so each one is a metadata key `toska-…` of at most 512 characters there: lists are
separated by commas, pairs are `name=value`. Any Consul client may write these keys, so reading takes what it finds.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from toska_common.contracts.names import ServiceName

Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._:/+-]{0,62}[A-Za-z0-9])?$")]
"""A short name without spaces or commas, at most 64 characters."""
Quantity = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9<>=%.+/: -]{1,64}$")]
"""An amount with its unit as people write it: `500m`, `256Mi`, `< 50 ms`."""
Version = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x20\x7f]+$")]
UrlPath = Annotated[str, StringConstraints(max_length=255, pattern=r"^/[^\x00-\x20\x7f]*$")]
Track = Literal["stable", "canary", "blue", "green"]

MAX_VALUE = 512
"""Longest value of Consul's metadata."""


class Profile(BaseModel):
    """The descriptive part of a registration; all of it optional."""

    type: Word | None = Field(default=None, description="Kind of service, such as `api` or `worker`")
    version: Version | None = None
    region: Word | None = None
    zone: Word | None = None
    protocols: tuple[Word, ...] = Field(default=(), max_length=8, description="`http`, `http2`, `grpc`, `websocket`, …")
    capabilities: tuple[Word, ...] = Field(default=(), max_length=32)
    features: tuple[Word, ...] = Field(default=(), max_length=32, description="Feature flags that are on")
    depends_on: tuple[ServiceName, ...] = Field(default=(), max_length=32, description="Services that it calls")
    track: Track | None = Field(default=None, description="Its part in a deployment of several versions")
    priority: int = Field(default=0, ge=0, le=65535, description="Lower ones are preferred, as in DNS SRV records")
    health_path: UrlPath | None = Field(default=None, description="Where it tells its health")
    resources: Mapping[Word, Quantity] = Field(
        default_factory=dict[str, str], max_length=16, description="What it needs and may use: `cpu`, `memory-limit`, …"
    )
    sla: Mapping[Word, Quantity] = Field(
        default_factory=dict[str, str], max_length=16, description="What it promises: `availability`, `p99`, …"
    )

    @field_validator("protocols", "capabilities", "features", "depends_on", "resources", "sla")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        if len(_written(value)) > MAX_VALUE:
            raise ValueError(f"longer than {MAX_VALUE} characters when written in one line")
        return value


def encode_profile(profile: Profile) -> dict[str, str]:
    """The metadata of a profile; fields that say nothing have none."""
    found = {name: getattr(profile, name) for name in Profile.model_fields}
    return {meta_key(name): _written(value) for name, value in found.items() if value}


def decode_profile(meta: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a profile that `meta` has something for, as far as it can be read."""
    return {name: read(meta[key]) for name, key, read in _READERS if key in meta}


def meta_key(field: str) -> str:
    """The metadata key of a field."""
    return "toska-" + field.replace("_", "-")


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items())  # pyright: ignore[reportUnknownVariableType] - strings
    return ",".join(value) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType] - likewise


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(text: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in _list(text))}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0


_READ_AS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("protocols", "capabilities", "features", "depends_on"), _list),
    **dict.fromkeys(("resources", "sla"), _pairs),
    "priority": _number,
}
_READERS = [(name, meta_key(name), _READ_AS.get(name, str)) for name in Profile.model_fields]
