"""The instances of one service as a caller sees them: chosen by load, skipped while their circuits are open.

One that refuses a connection is ejected for a moment at once, before any circuit has seen enough to open: nothing is
in flight there, so a choice by load would take it for the best of all, and a killed instance would eat up the retries
of everybody until the registry notices. Instances of the caller's own zone take what they can carry; others stand by.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import structlog

from toska_common.balancing import LeastRequest, RotationPolicy, rotate
from toska_common.breaker import BreakerPolicy, CircuitBreaker, CircuitState
from toska_common.clients.consul import ServiceEntry
from toska_common.contracts.discovery import Health
from toska_common.contracts.profile import meta_key
from toska_common.contracts.reports import score_steps
from toska_common.targets import TargetRules

log = structlog.get_logger(__name__)


_ZONE = meta_key("zone")
EJECTION_S = 1.0
"""How long an instance that refused a connection gets no calls, as long as others can take them."""


@dataclass(eq=False, slots=True)
class Endpoint:
    """One instance; what is known of it outlives changes of the list."""

    id: str
    address: str
    port: int
    breaker: CircuitBreaker
    weight: int = 1
    zone: str = ""
    healthy: bool = True
    joined_at: float = field(default=0.0, init=False)  # nobody starts slowly here
    in_flight: int = field(default=0, init=False)
    ejected_until: float = field(default=0.0, init=False)

    def eject(self, now: float) -> None:
        """It refused a connection: leave it alone for a while."""
        self.ejected_until = now + EJECTION_S


class Endpoints:
    """The current instances of a service.

    Args:
        service: Its name.
        policy: When an instance's circuit opens.
        rules: Addresses that nobody may be sent to.
        zone: The caller's own; empty if it has none.
    """

    def __init__(self, service: str, policy: BreakerPolicy, rules: TargetRules, zone: str = "") -> None:
        self._rotation = RotationPolicy(zone=zone)
        self._service = service
        self._policy = policy
        self._rules = rules
        self._known: dict[tuple[str, str, int], Endpoint] = {}
        self._near: LeastRequest[Endpoint] = LeastRequest(())
        self._all: LeastRequest[Endpoint] = LeastRequest(())

    def __len__(self) -> int:
        return len(self._known)

    def update(self, entries: Sequence[ServiceEntry]) -> None:
        """Take over what the registry says; critical instances are left out."""
        known: dict[tuple[str, str, int], Endpoint] = {}
        for entry in entries:
            if self._is_refused(entry):
                continue
            key = (entry.service.id, entry.address, entry.service.port)
            endpoint = self._known.get(key) or self._build(*key)
            endpoint.weight = max(1, entry.service.weight) * score_steps(entry.service.meta)
            endpoint.zone = entry.service.meta.get(_ZONE, "")
            endpoint.healthy = entry.health is not Health.CRITICAL
            known[key] = endpoint
        members = [*known.values()]
        self._known = {key: endpoint for key, endpoint in known.items() if endpoint.healthy}
        self._all = LeastRequest([*self._known.values()])
        # With the critical ones: how many of a zone are well says how much it can carry.
        rotation = rotate(members, self._rotation, 0.0)
        self._near = self._all if rotation.panic else LeastRequest(rotation.endpoints, rotation.weights)

    def pick(self, now: float, tried: Collection[Endpoint] = ()) -> Endpoint | None:
        """An endpoint whose circuit admits a call; one that is ejected, or was tried, only if there is no other."""

        def admits(endpoint: Endpoint) -> bool:
            return endpoint.breaker.admits(now)

        def untried(endpoint: Endpoint) -> bool:
            return endpoint not in tried and admits(endpoint)

        def usable(endpoint: Endpoint) -> bool:
            return endpoint.ejected_until <= now and untried(endpoint)

        choices = (self._near, usable), (self._all, usable), (self._all, untried), (self._all, admits)
        for balancer, condition in choices:
            endpoint = balancer.pick(condition)
            if endpoint is not None:
                return endpoint
        return None

    def retry_after_s(self, now: float) -> float:
        """Seconds until the first circuit admits a call again."""
        return min((endpoint.breaker.retry_after_s(now) for endpoint in self._known.values()), default=0.0)

    def _build(self, instance: str, address: str, port: int) -> Endpoint:
        return Endpoint(instance, address, port, CircuitBreaker(self._policy, self._reporter(instance)))

    def _reporter(self, instance: str) -> Callable[[CircuitState, CircuitState], None]:
        def report(before: CircuitState, after: CircuitState) -> None:
            write = log.warning if after is CircuitState.OPEN else log.info
            write("circuit_changed", upstream=self._service, endpoint=instance, before=before.value, after=after.value)

        return report

    def _is_refused(self, entry: ServiceEntry) -> bool:
        if not _looks_like_ip(entry.address):
            return False  # a name: checked when it has been resolved
        refusal = self._rules.refusal(entry.address, entry.service.port)
        if refusal is not None:
            log.error("endpoint_refused", upstream=self._service, endpoint=entry.service.id, reason=refusal)
        return refusal is not None


def _looks_like_ip(address: str) -> bool:
    return ":" in address or address.replace(".", "").isdigit()
