"""Resources with versions: what a group of nodes is to have, as immutable sets that share what they have in common.

Versions are hashes of contents, so every server of the same resources tells the same versions, and a client that
reconnects elsewhere is not sent what it has.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

from toska_router.xds.types import CLUSTER

_VERSION_BYTES = 8
_SUM_BYTES = 16
_EDS = 3
"""`envoy.config.cluster.v3.Cluster.DiscoveryType.EDS`."""


class Message(Protocol):
    """Any protobuf message, whichever library made its class."""

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 - protobuf's name
        """The message on the wire."""
        ...


@dataclass(frozen=True, slots=True)
class Resource:
    """One named resource, encoded.

    Attributes:
        name: Unique within its type.
        version: Of the contents; differs whenever they do.
        value: The message on the wire.
        on_demand: Sent to those who ask for it by name, and no part of what `*` stands for.
        endpoints: Of a cluster: the name under which its endpoints are discovered; empty for others.
    """

    name: str
    version: str
    value: bytes = b""
    on_demand: bool = False
    endpoints: str = ""


def _weight(resource: Resource) -> int:
    """What a resource adds to the sum that the version of a set follows from: one that changes is one subtraction."""
    told = f"{resource.name}\0{resource.version}\0{resource.on_demand}\0"
    return int.from_bytes(blake2b(told.encode(), digest_size=_SUM_BYTES).digest(), "big")


class TypeResources:
    """All resources of one type, immutable."""

    __slots__ = ("_difference", "_sum", "_wildcard", "by_name", "cache", "version")

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        found = {resource.name: resource for resource in resources}
        self._take(found, sum(map(_weight, found.values())))

    def _take(self, by_name: Mapping[str, Resource], total: int) -> None:
        self.by_name = by_name
        self._sum = total % (1 << 8 * _SUM_BYTES)
        self.version = blake2b(self._sum.to_bytes(_SUM_BYTES, "big"), digest_size=_VERSION_BYTES).hexdigest()
        self.cache: dict[str, bytes] = {}
        """Whatever a codec makes of the whole set, by its own keys."""
        self._wildcard: tuple[Resource, ...] | None = None
        self._difference: tuple[TypeResources, tuple[str, ...]] | None = None

    def get(self, name: str) -> Resource | None:
        """The resource of that name, if there is one."""
        return self.by_name.get(name)

    @property
    def wildcard(self) -> tuple[Resource, ...]:
        """What `*` stands for."""
        if self._wildcard is None:
            self._wildcard = tuple(resource for resource in self.by_name.values() if not resource.on_demand)
        return self._wildcard

    def replaced_by(self, resources: Sequence[Resource]) -> "TypeResources":
        """A set of these; this one if they are the same."""
        same = len(resources) == len(self) and all(self.get(resource.name) is resource for resource in resources)
        return self if same else TypeResources(resources)

    def changed(self, changes: Mapping[str, Resource | None]) -> "TypeResources":
        """A set with some of them changed, or taken away; this one if none of them is different."""
        different = {name: resource for name, resource in changes.items() if self.get(name) is not resource}
        if not different:
            return self
        found, total = dict(self.by_name), self._sum
        for name, resource in different.items():
            had = found.pop(name, None)
            total -= 0 if had is None else _weight(had)
            if resource is not None:
                found[name] = resource
                total += _weight(resource)
        made = TypeResources()
        made._take(found, total)
        made._difference = (self, tuple(different))
        self._difference = None  # as below
        return made

    def names_that_differ(self, before: "TypeResources") -> tuple[str, ...]:
        """Names that are new, changed or gone since `before`; worked out once for all streams that come from there."""
        if self._difference is None or self._difference[0] is not before:
            old, new = before.by_name, self.by_name
            changed = [name for name, resource in new.items() if old.get(name) is not resource]
            gone = [name for name in old if name not in new]
            self._difference = (before, (*changed, *gone))
            before._difference = None  # or every set would keep all those before it
        return self._difference[1]

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)


NOTHING = TypeResources()


@dataclass(frozen=True, slots=True)
class ResourceSet:
    """Everything that a group of nodes is to have, by type URL."""

    by_type: Mapping[str, TypeResources] = field(default_factory=dict[str, TypeResources])

    def of(self, type_url: str) -> TypeResources:
        """The resources of a type; an empty set if there are none."""
        return self.by_type.get(type_url, NOTHING)


def build_resource_set(
    resources: Mapping[str, Mapping[str, Message]],
    on_demand: Mapping[str, Mapping[str, Message]] | None = None,
    previous: ResourceSet | None = None,
) -> ResourceSet:
    """Encode messages, by type URL and name; what is as in `previous` is taken from there.

    Raises:
        ValueError: A resource is both among `resources` and `on_demand`, or has no name.
    """
    before = previous or ResourceSet()
    apart = on_demand or {}
    made: dict[str, TypeResources] = {}
    for type_url in dict.fromkeys((*resources, *apart)):
        common, asked = resources.get(type_url, {}), apart.get(type_url, {})
        if both := common.keys() & asked.keys():
            raise ValueError(f"{type_url} {min(both)}: a resource is either on demand or for all")
        old = before.of(type_url)
        found = [encode_resource(type_url, name, message, old.get(name)) for name, message in common.items()]
        found += [
            encode_resource(type_url, name, message, old.get(name), on_demand=True) for name, message in asked.items()
        ]
        made[type_url] = old.replaced_by(found)
    return ResourceSet(made)


def encode_resource(
    type_url: str, name: str, message: Message, known: Resource | None = None, *, on_demand: bool = False
) -> Resource:
    """A message as a resource; `known` itself if it is the same.

    Raises:
        ValueError: The name cannot be one.
    """
    if not name or name == "*":
        raise ValueError(f"{type_url}: {name!r} cannot be a resource's name")
    value = message.SerializeToString(deterministic=True)
    if known is not None and known.value == value and known.on_demand == on_demand:
        return known
    version = blake2b(value, digest_size=_VERSION_BYTES).hexdigest()
    return Resource(name, version, value, on_demand, _endpoints_of(type_url, name, message))


def _endpoints_of(type_url: str, name: str, cluster: Any) -> str:
    if type_url != CLUSTER or cluster.type != _EDS:
        return ""
    return cluster.eds_cluster_config.service_name or name
