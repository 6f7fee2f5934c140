"""Answers of the catalog, encoded once for each (query, index): a thousand watchers of one change cost one encoding."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from toska_common.contracts.discovery import Health

from toska_discovery.consul.inventory import Inventory
from toska_discovery.consul.request import Query, encode
from toska_discovery.consul.views import Node, catalog_entry, check_body, health_service, node_body
from toska_discovery.instance import Instance
from toska_discovery.node import OWN_NODE
from toska_discovery.registry import Registry

MAX_BYTES = 128 * 2**20
"""Of answers kept, with what it takes to keep them; the one that was made first goes first."""
_ENTRY_BYTES = 512


class Selection(NamedTuple):
    """Which entries of a list are asked for, and in which order.

    Attributes:
        tags: That an instance must have all of.
        meta: Pairs that a node must have all of.
        own_first: Whether those on the registry's own node come first; by how far away the others are is not known.
    """

    tags: tuple[str, ...] = ()
    meta: tuple[tuple[str, str], ...] = ()
    own_first: bool = False


EVERYTHING = Selection()


def selection_of(query: Query, own: Node) -> Selection:
    """What `tag`, `node-meta` and `near` ask for."""
    if query.values.keys().isdisjoint(("tag", "node-meta", "near")):
        return EVERYTHING
    pairs = (pair.partition(":") for pair in query.all("node-meta"))
    meta = tuple((key, value) for key, _, value in pairs)
    near = query.first("near").lower()
    return Selection(query.all("tag"), meta, near in {"_agent", own.name.lower()})


class Answers:
    """Encoded answers about one registry."""

    def __init__(self, state: Registry, own: Node) -> None:
        self._state = state
        self._inventory = Inventory(state, own)
        self._kept: dict[tuple[Any, ...], tuple[int, bytes]] = {}
        self._bytes = 0

    @property
    def inventory(self) -> Inventory:
        """What the answers are about."""
        return self._inventory

    def services(self, wanted: Selection) -> bytes:
        """`catalog/services`."""
        return self._keep(("services", wanted), self._nodes_or_services, lambda: self._list_services(wanted))

    def nodes(self, wanted: Selection) -> bytes:
        """`catalog/nodes`."""
        return self._keep(("nodes", wanted), self._state.listing.nodes_index, lambda: self._list_nodes(wanted))

    def catalog_service(self, name: str, wanted: Selection) -> bytes:
        """`catalog/service/:name`."""
        return self._keep(
            ("catalog", name, wanted), self._inventory.service_index(name), lambda: self._list_catalog(name, wanted)
        )

    def health_service(self, name: str, wanted: Selection, *, passing: bool) -> bytes:
        """`health/service/:name`."""
        return self._keep(
            ("health", name, wanted, passing),
            self._inventory.service_index(name),
            lambda: self._list_health(name, wanted, passing=passing),
        )

    def health_checks(self, name: str, wanted: Selection) -> bytes:
        """`health/checks/:service`."""
        return self._keep(
            ("checks", name, wanted), self._inventory.service_index(name), lambda: self._list_checks(name, wanted)
        )

    def health_state(self, state: str, wanted: Selection) -> bytes:
        """`health/state/:state`; a state that there is not has no checks."""
        if state != "any" and state not in {health.value for health in Health}:
            return b"[]"
        index = max(self._state.checks_index, self._state.listing.nodes_index)
        return self._keep(("state", state, wanted), index, lambda: self._list_state(state, wanted))

    def health_node(self, name: str) -> bytes:
        """`health/node/:node`."""
        index = max(self._state.checks_index, self._state.listing.nodes_index)
        return self._keep(("node checks", name), index, lambda: self._list_node_checks(name))

    def catalog_node(self, name: str) -> bytes:
        """`catalog/node/:node`."""
        return self._keep(("node", name), self._nodes_or_services, lambda: self._show_node(name))

    def node_services(self, name: str) -> bytes:
        """`catalog/node-services/:node`."""
        return self._keep(("node services", name), self._nodes_or_services, lambda: self._show_node_services(name))

    @property
    def _nodes_or_services(self) -> int:
        return max(self._state.services_index, self._state.listing.nodes_index)

    def _keep(self, query: tuple[Any, ...], index: int, build: Callable[[], Any]) -> bytes:
        kept = self._kept.get(query)
        if kept is not None and kept[0] == index:
            return kept[1]
        value = build()
        body = encode(value)
        if not value:
            # Names that nobody has are without number, and an empty answer costs nothing.
            self._forget(query)
            return body
        self._bytes += len(body) - len(kept[1]) if kept is not None else len(body) + _ENTRY_BYTES
        self._kept[query] = (index, body)
        while self._bytes > MAX_BYTES:
            self._forget(next(iter(self._kept)))
        return body

    def _forget(self, query: tuple[Any, ...]) -> None:
        kept = self._kept.pop(query, None)
        if kept is not None:
            self._bytes -= len(kept[1]) + _ENTRY_BYTES

    def _list_services(self, wanted: Selection) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, members in self._inventory.services():
            # Not by node and id: only the tags are shown, and there may be very many instances.
            listed = members if not wanted.meta else [item for item in members if self._has_meta(item.node, wanted)]
            if listed:
                found[name] = list(dict.fromkeys(tag for instance in listed for tag in instance.service.tags))
        return found

    def _list_nodes(self, wanted: Selection) -> list[dict[str, Any]]:
        keys = [key for key in self._inventory.nodes() if self._has_meta(key, wanted)]
        if wanted.own_first:
            keys.sort(key=lambda key: key != OWN_NODE)
        return [node_body(self._inventory.node(key), self._inventory.datacenter) for key in keys]

    def _list_catalog(self, name: str, wanted: Selection) -> list[dict[str, Any]]:
        return [
            catalog_entry(self._inventory.node(instance.node), instance, self._inventory.datacenter)
            for instance in self._selected(name, wanted)
        ]

    def _list_health(self, name: str, wanted: Selection, *, passing: bool) -> list[dict[str, Any]]:
        inventory = self._inventory
        nodes: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        entries: list[dict[str, Any]] = []
        for instance in self._selected(name, wanted):
            if passing and not inventory.is_passing(instance):
                continue
            if instance.node not in nodes:
                shown = node_body(inventory.node(instance.node), inventory.datacenter)
                nodes[instance.node] = shown, self._show_checks(instance.node, None)
            node, checks = nodes[instance.node]
            shown_checks = [*checks, *self._show_checks(instance.node, instance)]
            entries.append({"Node": node, "Service": health_service(instance), "Checks": shown_checks})
        return entries

    def _list_checks(self, name: str, wanted: Selection) -> list[dict[str, Any]]:
        checks = [
            (instance.node, check)
            for instance in self._selected(name, wanted._replace(tags=()))
            for check in self._show_checks(instance.node, instance)
        ]
        return [check for _, check in self._in_order(checks, wanted)]

    def _list_state(self, state: str, wanted: Selection) -> list[dict[str, Any]]:
        keys = [key for key in self._inventory.nodes() if self._has_meta(key, wanted)]
        checks = [
            (key, check)
            for key in keys
            for owner in (None, *self._state.listing.instances_on(key))
            for check in self._show_checks(key, owner, state)
        ]
        return [check for _, check in self._in_order(checks, wanted)]

    def _list_node_checks(self, name: str) -> list[dict[str, Any]]:
        key = self._inventory.find_node(name)
        if key is None:
            return []
        checks = [
            (key, check)
            for owner in (None, *self._state.listing.instances_on(key))
            for check in self._show_checks(key, owner)
        ]
        return [check for _, check in self._in_order(checks, EVERYTHING)]

    def _show_node(self, name: str) -> dict[str, Any] | None:
        key = self._inventory.find_node(name)
        if key is None:
            return None
        services = {item.service.id: health_service(item) for item in self._inventory.instances_on(key)}
        return {"Node": node_body(self._inventory.node(key), self._inventory.datacenter), "Services": services}

    def _show_node_services(self, name: str) -> dict[str, Any]:
        found = self._show_node(name)
        if found is None:
            return {"Node": None, "Services": None}
        return {**found, "Services": [*found["Services"].values()]}

    def _show_checks(self, key: str, owner: Instance | None, state: str = "any") -> list[dict[str, Any]]:
        """Checks of an instance, or with `None` those that are the node's own, by id; those in `state`, or all."""
        if owner is None:
            checks = self._inventory.node_checks(key)
        elif len(owner.checks) > 1:
            checks = [check for _, check in sorted(owner.checks.items())]
        else:
            checks = owner.checks.values()
        name = self._inventory.node(key).definition.name
        return [check_body(name, owner, check) for check in checks if state in ("any", check.status.value)]

    def _selected(self, name: str, wanted: Selection) -> Iterable[Instance]:
        """Those that have every tag, in any case of letters, as Consul compares them, on nodes with the metadata."""
        instances = self._inventory.instances(name)
        if wanted is EVERYTHING:
            return instances
        tags = {tag.lower() for tag in wanted.tags}
        if tags:
            instances = [item for item in instances if tags <= {tag.lower() for tag in item.service.tags}]
        instances = [item for item in instances if self._has_meta(item.node, wanted)]
        return sorted(instances, key=lambda item: item.node != OWN_NODE) if wanted.own_first else instances

    def _has_meta(self, key: str, wanted: Selection) -> bool:
        if not wanted.meta:
            return True
        meta = self._inventory.node(key).definition.meta or {}
        return all(name in meta and meta[name] == value for name, value in wanted.meta)

    def _in_order(
        self, checks: Iterable[tuple[str, dict[str, Any]]], wanted: Selection
    ) -> list[tuple[str, dict[str, Any]]]:
        """By node and id, as Consul lists checks."""
        return sorted(
            checks,
            key=lambda item: (wanted.own_first and item[0] != OWN_NODE, item[1]["Node"].lower(), item[1]["CheckID"]),
        )
