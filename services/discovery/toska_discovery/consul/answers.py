"""Answers of the catalog, encoded once for each (query, index): a thousand watchers of one change cost one encoding."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from toska_common.contracts.discovery import Health

from toska_discovery.check import Check
from toska_discovery.consul.request import encode
from toska_discovery.consul.views import CONSUL, Node, health_service
from toska_discovery.instance import Instance
from toska_discovery.node import OWN_NODE
from toska_discovery.registry import Registry

MAX_ANSWERS = 8192
"""Answers kept; the one that was made first goes first."""


class Answers:
    """Encoded answers about one registry. Each method returns `(body, index)`."""

    def __init__(self, state: Registry, node: Node) -> None:
        self._state = state
        self._node = node
        self._kept: dict[tuple[Any, ...], tuple[int, bytes]] = {}

    def services(self) -> bytes:
        """`catalog/services`."""
        return self._keep(("services",), self._state.services_index, self._list_services)

    def catalog_service(self, name: str, tags: tuple[str, ...]) -> bytes:
        """`catalog/service/:name`."""
        return self._keep(("catalog", name, tags), self._index_of(name), lambda: self._list_catalog(name, tags))

    def health_service(self, name: str, tags: tuple[str, ...], *, passing: bool) -> bytes:
        """`health/service/:name`."""
        return self._keep(
            ("health", name, tags, passing),
            self._index_of(name),
            lambda: self._list_health(name, tags, passing=passing),
        )

    def health_checks(self, name: str) -> bytes:
        """`health/checks/:service`."""
        return self._keep(
            ("checks", name),
            self._index_of(name),
            lambda: [
                check for instance in self._instances(name) for check in self._node.checks(instance, instance.checks)
            ],
        )

    def health_state(self, state: str) -> bytes:
        """`health/state/:state`; a state that there is not has no checks."""
        if state != "any" and state not in {health.value for health in Health}:
            return b"[]"
        return self._keep(("state", state), self._state.checks_index, lambda: self._list_state(state))

    def nodes(self) -> bytes:
        """`catalog/nodes`."""
        return self._keep(("nodes",), self._node.index, lambda: [self._node.body])

    def _keep(self, query: tuple[Any, ...], index: int, build: Callable[[], Any]) -> bytes:
        kept = self._kept.get(query)
        if kept is not None and kept[0] == index:
            return kept[1]
        value = build()
        body = encode(value)
        if not value:
            # Names that nobody has are without number, and an empty answer costs nothing.
            self._kept.pop(query, None)
            return body
        if kept is None and len(self._kept) >= MAX_ANSWERS:
            del self._kept[next(iter(self._kept))]
        self._kept[query] = (index, body)
        return body

    def _list_services(self) -> dict[str, list[str]]:
        services = {
            name: list(dict.fromkeys(tag for instance in members.values() for tag in instance.service.tags))
            for name, members in self._state.services.items()
        }
        own = self._node.consul_service
        return dict(sorted({own.name: [*own.tags], **services}.items()))

    def _list_catalog(self, name: str, tags: tuple[str, ...]) -> list[dict[str, Any]]:
        entries = [
            self._node.catalog_entry(instance.service, instance.create_index, instance.modify_index)
            for instance in _tagged(self._instances(name), tags)
        ]
        own = self._node.consul_service
        if name == own.name and not tags:
            entries.insert(0, self._node.catalog_entry(own, self._node.index, self._node.index))
        return entries

    def _list_health(self, name: str, tags: tuple[str, ...], *, passing: bool) -> list[dict[str, Any]]:
        entries = [
            self._node.health_entry(instance, self._node_checks)
            for instance in _tagged(self._instances(name), tags)
            if not passing or self._state.health_of(instance) is Health.PASSING
        ]
        own = self._node.consul_service
        if name == own.name and not tags:
            service = health_service(own, self._node.index, self._node.index)
            checks = [self._node.serf_health, *self._node.checks(None, self._node_checks)]
            if not passing or self._state.nodes[OWN_NODE].health is Health.PASSING:
                entries.insert(0, {"Node": self._node.body, "Service": service, "Checks": checks})
        return entries

    def _list_state(self, state: str) -> list[dict[str, Any]]:
        checks = [
            self._node.serf_health,
            *self._node.checks(None, self._node_checks),
            *(
                check
                for instance in self._state.instances.values()
                for check in self._node.checks(instance, instance.checks)
            ),
        ]
        return sorted(
            (check for check in checks if state in {"any", check["Status"]}), key=lambda check: check["CheckID"]
        )

    def _index_of(self, name: str) -> int:
        index = self._state.service_index(name)
        # The registry's own service is not registered, but on a node whose checks it shows.
        return max(index, self._state.nodes[OWN_NODE].checks_index) if name == CONSUL else index

    @property
    def _node_checks(self) -> Mapping[str, Check]:
        return self._state.nodes[OWN_NODE].checks

    def _instances(self, name: str) -> list[Instance]:
        return [instance for _, instance in sorted(self._state.services.get(name, {}).items())]


def _tagged(instances: Iterable[Instance], tags: tuple[str, ...]) -> Iterable[Instance]:
    """Those that have every one of `tags`, in any case of letters, as Consul compares them."""
    wanted = {tag.lower() for tag in tags}
    return (
        instance for instance in instances if not wanted or wanted <= {tag.lower() for tag in instance.service.tags}
    )
