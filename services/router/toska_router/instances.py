"""The instances that can take traffic, as the registry tells them, service by service. Pure: `now` comes in.

A registry that was away may come back without its memory, and every instance needs a moment to register again. So
for a grace period after an outage of a service's watch, an instance that the registry does not mention is kept:

    mentioned, passing ──▶ an endpoint
    mentioned, else    ──▶ none, at once
    not mentioned      ──▶ none, at once; within the grace after an outage: kept until the grace is over
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address

import structlog
from pydantic import ValidationError
from toska_common.clients.consul_records import ServiceEntry
from toska_common.contracts.discovery import META_EXPOSE, Health
from toska_common.contracts.names import is_unix
from toska_common.contracts.offers import decode_offer
from toska_common.contracts.profile import meta_key
from toska_common.contracts.reports import SCORE_STEPS, score_steps
from toska_common.contracts.routing import ClusterEndpoints, Endpoint
from toska_common.routing.pools import pool
from toska_common.targets import TargetRules

log = structlog.get_logger(__name__)

_MAX_WEIGHT = 65535
_MAX_ZONE = 64
_ZONE = meta_key("zone")
_TARGETS = TargetRules()


@dataclass(slots=True)
class _Service:
    """What is known of one service; `held` are endpoints that the registry has stopped mentioning."""

    pool: ClusterEndpoints
    exposed: bool = False
    offers: tuple[str, ...] = ()
    held: dict[str, Endpoint] = field(default_factory=dict[str, Endpoint])
    held_until: float = 0.0
    held_exposed: bool = False


class Instances:
    """All services' endpoints, and which of the services asked for an automatic route."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._services: dict[str, _Service] = {}
        self._pools: dict[str, ClusterEndpoints] = {}
        self._changed: set[str] = set()
        self._asking: tuple[frozenset[str], Mapping[str, tuple[str, ...]]] | None = None

    def outage_over(self, service: str, now: float) -> None:
        """The registry answers about `service` again after it did not."""
        known = self._services.get(service)
        if known is not None:
            known.held_until = now + self._grace_s

    def replace(self, service: str, entries: Sequence[ServiceEntry], now: float) -> bool:
        """Take over the registry's list of a service; tells whether anything that matters is different."""
        before = self._services.get(service)
        mentioned = _endpoints(entries)
        exposed = any(entry.service.meta.get(META_EXPOSE) == "true" for entry in entries)
        endpoints = pool(endpoint for endpoint in mentioned.values() if endpoint is not None)
        after = _Service(endpoints, exposed, _offers(entries))
        if before is not None and now < before.held_until:
            _hold(before, after, mentioned)
        if before is None and not entries:
            return False
        self._set(service, after if entries or after.held or now < after.held_until else None)
        return before is None or _told(before) != _told(after)

    def expire(self, now: float) -> bool:
        """Let go of what was held for long enough; tells whether there was any."""
        over = [(name, known) for name, known in self._services.items() if known.held and now >= known.held_until]
        for name, known in over:
            left = [endpoint for endpoint in known.pool.endpoints if endpoint.key not in known.held]
            log.info("endpoints_let_go", service_name=name, count=len(known.held))
            exposed = known.exposed and not known.held_exposed
            self._set(name, _Service(pool(left), exposed, known.offers if left else ()) if left or exposed else None)
        return bool(over)

    def _set(self, name: str, after: _Service | None) -> None:
        before = self._services.pop(name, None)
        if after is None:
            self._pools.pop(name, None)
        else:
            self._services[name], self._pools[name] = after, after.pool
        self._changed.add(name)
        if _asks(before) != _asks(after):
            self._asking = None

    def pools(self) -> Mapping[str, ClusterEndpoints]:
        """The endpoints of every service that has any; it changes with them."""
        return self._pools

    def take_changed(self) -> set[str]:
        """The services whose endpoints may be others than when this was asked last."""
        changed, self._changed = self._changed, set()
        return changed

    def exposed(self) -> frozenset[str]:
        """The services that asked for an automatic route; the same object while they are the same."""
        return self._asked[0]

    def offers(self) -> Mapping[str, tuple[str, ...]]:
        """What services ask for in their metadata, likewise: by service, what most instances say first."""
        return self._asked[1]

    @property
    def _asked(self) -> tuple[frozenset[str], Mapping[str, tuple[str, ...]]]:
        if self._asking is None:
            exposed = frozenset(name for name, known in self._services.items() if known.exposed)
            self._asking = exposed, {name: known.offers for name, known in self._services.items() if known.offers}
        return self._asking

    def __len__(self) -> int:
        return len(self._services)


def _asks(service: _Service | None) -> tuple[bool, tuple[str, ...]]:
    return (False, ()) if service is None else (service.exposed, service.offers)


def _told(service: _Service) -> tuple[object, ...]:
    return service.pool, service.exposed, service.offers


def _offers(entries: Sequence[ServiceEntry]) -> tuple[str, ...]:
    texts = Counter(text for entry in entries if (text := decode_offer(entry.service.meta)))
    # Not who came first: any two routers that see the same instances have to come to the same.
    return tuple(sorted(texts, key=lambda text: (-texts[text], text)))


def _hold(before: _Service, after: _Service, mentioned: Mapping[str, Endpoint | None]) -> None:
    # An instance that came back under another id is at its old address.
    taken = {(endpoint.address, endpoint.port) for endpoint in after.pool.endpoints}
    lost = {
        endpoint.key: endpoint
        for endpoint in before.pool.endpoints
        if endpoint.key not in mentioned and (endpoint.address, endpoint.port) not in taken
    }
    after.held, after.held_until = lost, before.held_until
    if lost:
        after.pool = pool((*after.pool.endpoints, *lost.values()))
        after.held_exposed = before.exposed and not after.exposed
        after.exposed = after.exposed or before.exposed
        after.offers = after.offers or before.offers


def _endpoints(entries: Sequence[ServiceEntry]) -> dict[str, Endpoint | None]:
    """By key; `None` for an instance that is there and cannot take traffic."""
    found: dict[str, Endpoint | None] = {}
    # Weights are whole numbers, so what lowers one in quarters makes the others larger.
    lowered = any(score_steps(entry.service.meta) < SCORE_STEPS for entry in entries)
    times = Counter(entry.service.id for entry in entries)
    for entry in entries:
        # Consul's ids are unique for an agent only.
        key = entry.service.id if times[entry.service.id] == 1 else f"{entry.node.name}:{entry.service.id}"
        found[key] = _endpoint(key, entry, lowered=lowered) if entry.health is Health.PASSING else None
    return found


def _endpoint(key: str, entry: ServiceEntry, *, lowered: bool) -> Endpoint | None:
    weight = max(entry.service.weight, 1) * (score_steps(entry.service.meta) if lowered else 1)
    weight = min(weight, _MAX_WEIGHT)
    if is_unix(entry.address):
        # Anybody who may register could make gateways talk to a daemon of their machine.
        reason = "address: only an operator's cluster may lead to a Unix socket"
        log.warning("instance_skipped", instance=key, service_name=entry.service.service, reason=reason)
        return None
    if refusal := _refusal(entry.address):
        # Here, and not by gateways alone: Envoys and clients that balance by themselves would go there.
        log.warning("instance_skipped", instance=key, service_name=entry.service.service, reason=refusal)
        return None
    zone = entry.service.meta.get(_ZONE, "")[:_MAX_ZONE]
    try:
        return Endpoint(id=key, address=entry.address, port=entry.service.port, weight=weight, zone=zone)
    except ValidationError as error:
        # Consul lists what nobody can connect to, such as port 0; one such instance must not spoil a snapshot.
        reason = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
        log.warning("instance_skipped", instance=key, service_name=entry.service.service, reason=reason)
        return None


@lru_cache(maxsize=1 << 17)
def _refusal(address: str) -> str | None:
    """Why nobody is to go to an address; names are for whoever looks them up."""
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return _TARGETS.refusal(address, 0)
