"""What an app says of itself when it joins a mesh: checked when the app is built, sent when its address is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from toska_common import problem
from toska_common.clients.consul import ServiceRegistration, TTLCheck
from toska_common.clients.presence import REMOVED_AFTER
from toska_common.contracts.discovery import META_EXPOSE, META_VERSION, Registration
from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.errors import ConfigurationError, MeshError


@dataclass(frozen=True, slots=True)
class Introduction:
    """An app, as the registry is told of it.

    Attributes:
        said: All but its address.
        routes: Metadata of the routes that it wants of the gateway.
    """

    name: str
    version: str
    said: Registration
    routes: Mapping[str, str]

    @classmethod
    def build(
        cls, name: str, version: str, *, routes: Sequence[Mapping[str, Any]], profile: Mapping[str, Any], **said: Any
    ) -> "Introduction":
        """Check what an app says: `said` and `profile` are fields of a registration, and the former come first.

        Raises:
            ConfigurationError: Something of it is wrong; says which and why.
        """
        checked = _check(name, {**profile, **said})
        if name.startswith(RESERVED_PREFIX):
            raise ConfigurationError(f"Mesh(name={name!r}): names that begin with {RESERVED_PREFIX} are the mesh's own")
        return cls(name, version, checked, _check_routes(name, routes))

    def registration(
        self, address: str, port: int, *, lease_ttl: timedelta, exposed: bool, paths: Mapping[str, str | None]
    ) -> ServiceRegistration:
        """What the registry is told of the instance at an address; `paths` are metadata, as far as the app has them."""
        meta = {
            **self.said.meta,
            **self.routes,
            META_EXPOSE: "true" if exposed else "false",
            META_VERSION: self.version,
            **{key: path for key, path in paths.items() if path},
        }
        return ServiceRegistration(
            name=self.name,
            id=f"{self.name}-{address}-{port}",
            address=address,
            port=port,
            tags=self.said.tags,
            meta=meta,
            weight=self.said.weight,
            checks=(TTLCheck(lease_ttl, deregister_after=REMOVED_AFTER),),
        )


def check_name(service: str) -> None:
    """Refuse what is no name of a service, one of the mesh's own included.

    Raises:
        ConfigurationError: It is none; says why.
    """
    _check(service, {})


def _check(name: str, said: Mapping[str, Any]) -> Registration:
    try:
        return Registration.model_validate({**said, "service": name, "address": "127.0.0.1", "port": 1})
    except ValidationError as error:
        problems = problem.field_problems(error.errors())
        reasons = "; ".join(f"{item['field']}: {item['reason']}" for item in problems)
        raise ConfigurationError(f"Mesh(name={name!r}): {reasons}") from error


def _check_routes(name: str, routes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if not routes:
        return {}
    # The contract of routing and the expressions behind it are for those who use them (extra `routing`).
    from toska_common.contracts.offers import decode_offer, encode_offer
    from toska_common.routing.offers import read_offer

    try:
        meta = encode_offer(routes)
        read_offer(name, decode_offer(meta))
    except (MeshError, TypeError, ValueError) as error:
        raise ConfigurationError(f"Mesh(name={name!r}): routes: {error}") from error
    return meta
