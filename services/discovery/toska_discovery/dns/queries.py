"""What prepared queries find, for DNS: the registry's own objects instead of the JSON that the Consul API shows."""

import random
from collections.abc import Callable, Mapping

from toska_common.contracts.discovery import Health

from toska_discovery.check import worst
from toska_discovery.dns.zone import Found
from toska_discovery.instance import Instance
from toska_discovery.node import OWN_NODE, Node
from toska_discovery.query import PreparedQuery
from toska_discovery.registry import Registry

_OWN_NODE = "_agent"


class QueryFinder:
    """Executes prepared queries of one registry.

    Args:
        parse_duration: Seconds of a duration as queries have them.
    """

    def __init__(self, state: Registry, parse_duration: Callable[[str], float]) -> None:
        self._state = state
        self._parse_duration = parse_duration

    def find(self, name: str) -> Found | None:
        """What the query of that name or id finds, in random order and what is near first; `None` without one."""
        query = self._state.coordination.queries.resolve(name)
        if query is None:
            return None
        found = [instance for instance in self._instances(query) if self._is_wanted(query, instance)]
        random.shuffle(found)
        own_name = self._state.nodes[OWN_NODE].definition.name.lower()
        near = query.near.lower() in {_OWN_NODE, own_name}
        if near:
            found.sort(key=lambda instance: instance.node != OWN_NODE)
        ttl_s = self._parse_duration(query.dns_ttl) if query.dns_ttl else 0
        return Found(query.service, found, int(ttl_s), in_order=near)

    def _instances(self, query: PreparedQuery) -> list[Instance]:
        return [] if query.connect else list(self._state.services.get(query.service, {}).values())

    def _is_wanted(self, query: PreparedQuery, instance: Instance) -> bool:
        service, node = instance.service, self._state.nodes[instance.node]
        health = _health(instance, node, frozenset(query.ignored_checks or ()))
        tags = {tag.lower() for tag in service.tags}
        return (
            health is not Health.CRITICAL
            and not (query.only_passing and health is not Health.PASSING)
            and all(_has_tag(tags, tag.lower()) for tag in query.tags or ())
            and _includes(service.meta, query.service_meta)
            and _includes(node.definition.meta or {}, query.node_meta)
        )


def _health(instance: Instance, node: Node, ignored: frozenset[str]) -> Health:
    checks = {**node.checks, **instance.checks}
    return worst(check.status for check_id, check in checks.items() if check_id not in ignored)


def _has_tag(tags: set[str], wanted: str) -> bool:
    return wanted[1:] not in tags if wanted.startswith("!") else wanted in tags


def _includes(meta: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return all(meta.get(key) == value for key, value in (wanted or {}).items())
