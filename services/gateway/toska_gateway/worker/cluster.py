"""Clusters: which endpoint takes the next request, and who waits for a connection.

Endpoints live on across updates under their key, with their pools and counts. The hot path asks one balancer, which is
built anew when an endpoint comes, goes, is ejected or returns, or gains weight after its start.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from toska_common.balancing import Balancer, LeastRequest, RotationPolicy, rotate
from toska_common.balancing.kinds import BALANCERS, IN_STEPS
from toska_common.breaker import BreakerPolicy, CircuitBreaker, CircuitState

from toska_gateway.worker.affinity import Affinity
from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.failover import Failover
from toska_gateway.worker.keys import Asker, KeyOf, by_client, compile_key
from toska_gateway.worker.outliers import OutlierPolicy
from toska_gateway.worker.retries import RetryBudget
from toska_gateway.worker.stats import WorkerStats
from toska_gateway.worker.telling import Tell, tell_nobody

if TYPE_CHECKING:
    from toska_gateway.worker.certificates import ClientContext
    from toska_gateway.worker.dispatch import Dispatch
    from toska_gateway.worker.http1 import RequestHead

_NEVER: Final = float("inf")
OWN_ZONE: Final = "local"
"""What a cluster calls the zone of whichever gateway reads it."""


_Steps = Generator[None, None, Balancer[Endpoint]]


class Cluster:
    """Equivalent endpoints behind one balancer.

    Attributes:
        changes_at: When the rotation is another although nothing happens: an ejection ends, a newcomer gains weight.
        key_of: Makes the number that a request's endpoint follows from, where the balancer goes by a key.
        affinity: Where clients come back to the endpoint that they had.
        breaker: The circuit in front of it, in this worker: each sees enough traffic to judge by itself, and a worker
            that cannot reach the cluster does not cut off those that can.
        timed: Whether the balancer wants to know how long answers take.
        curious: Whether anybody wants to know what answers are: the balancer, the affinity, the ejection of outliers.
        guarded: Whether a request needs to be admitted: there is a circuit, a limit of requests, or somebody who takes
            over.
        started: Attempts begun so far; of these `finished` are over.
        budget: Of what may be tried again.
        failover: Who takes over while too few endpoints are well.
        well: How many endpoints are neither ejected nor fail their health check.
        used: Whether a connection to one of its endpoints was ever asked for.
    """

    __slots__ = (
        "_balancer", "_breaker_policy", "_built_for", "_kind", "_policy", "_soon", "_steps", "_tell", "_unhealthy",
        "_usable", "affinity", "breaker", "budget", "changes_at", "connections", "curious", "endpoints", "failover",
        "finished", "fixed", "guarded", "keep_alive", "key_of", "max_connections", "max_pending", "max_requests",
        "mesh_owned", "name", "outliers", "pending", "pending_timeout", "started", "stats", "timed", "tls", "used",
        "version", "well",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        stats: WorkerStats | None = None,
        tell: Tell = tell_nobody,
        soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.name = name
        self._steps: _Steps | None = None  # of the balancer that is being built
        self._soon = soon  # what takes long is done in many turns of the loop, where there is one
        self._tell = tell
        self.stats = stats or WorkerStats()
        self.version = ""
        self.endpoints: dict[str, Endpoint] = {}
        self.connections = 0
        self.pending: deque[Dispatch] = deque()
        self.started = 0
        self.finished = 0
        self.budget = RetryBudget()
        self.guarded = False
        self.curious = False
        self.max_requests = 0
        self.outliers = OutlierPolicy()
        self._unhealthy: frozenset[str] = frozenset()
        self.tls: ClientContext | None = None
        self.changes_at = _NEVER
        self.timed = False
        self.key_of: KeyOf | None = None
        self.affinity: Affinity | None = None
        self.breaker: CircuitBreaker | None = None
        self.failover: Failover | None = None
        self.well = 0
        self.used = False
        self._breaker_policy: BreakerPolicy | None = None
        self._kind = "least_request"
        self._policy = RotationPolicy()
        self._balancer: Balancer[Endpoint] = LeastRequest[Endpoint](())
        self._built_for: tuple[str, list[Endpoint], list[float]] = ("", [], [])
        self._usable: Callable[[Endpoint], bool] | None = None

    def configure(self, settings: dict[str, Any], secret: bytes = b"", now: float = 0.0, zone: str = "") -> None:
        """Take over the cluster's settings; endpoints and connections stay.

        Args:
            settings: The cluster of the routing document, as plain data.
            secret: What affinity cookies are made with.
            now: Monotonic seconds.
            zone: The gateway's own; empty if it has none.
        """
        limits = settings["limits"]
        self.max_connections: int = limits["max_connections"]
        self.max_pending: int = limits["max_pending"]
        self.max_requests = limits["max_requests"]
        self.pending_timeout: float = limits["pending_timeout"]
        self.outliers = OutlierPolicy.of(settings["outlier"])
        self.keep_alive: float = settings["keep_alive"]
        self.mesh_owned: bool = settings.get("mesh_owned", False)
        self.fixed: bool = settings.get("fixed", False)  # its endpoints are an operator's, not the registry's
        self._kind = kind = settings["balancer"]
        self.timed = kind == "peak_ewma"
        self.key_of = by_client if kind == "ip_hash" else compile_key(settings.get("hash_key"))
        affinity = settings.get("affinity")
        self.affinity = Affinity(affinity, self.name, secret) if affinity else None
        self._break(settings.get("breaker"))
        failover = settings.get("failover")
        self.failover = Failover(failover) if failover else None
        self.guarded = self.breaker is not None or bool(self.max_requests) or self.failover is not None
        self.curious = self.timed or self.affinity is not None or self.outliers.by_answers
        if settings.get("health_check") is None:
            self._unhealthy = frozenset()
        self._policy = RotationPolicy(
            panic_ratio=settings.get("panic_percent", 0.0) / 100,
            zone=zone if settings.get("zone") == OWN_ZONE else settings.get("zone", ""),
            zone_least=settings.get("zone_min_endpoints", 1),
            slow_start_s=settings.get("slow_start", 0.0),
        )
        self.refresh(now)

    def _break(self, settings: dict[str, Any] | None) -> None:
        policy = None
        if settings is not None:
            policy = BreakerPolicy(
                failure_ratio=settings["failure_ratio"],
                min_requests=settings["min_requests"],
                window_s=settings["window"],
                cooldown_s=settings["cooldown"],
                half_open_requests=settings["half_open_requests"],
            )
        if policy != self._breaker_policy:  # else it stays as it is: a change of routes closes no circuit
            self._breaker_policy = policy
            self.breaker = None if policy is None else CircuitBreaker(policy, self._tell_circuit)

    def _tell_circuit(self, before: CircuitState, after: CircuitState) -> None:
        level = "warning" if after is CircuitState.OPEN else "info"
        self._tell(level, "circuit_changed", {"cluster": self.name, "before": before.value, "after": after.value})

    def update(self, endpoints: list[dict[str, Any]], version: str, now: float = 0.0) -> list[Endpoint]:
        """Replace the set of endpoints; returns those that left, whose idle connections the caller closes."""
        known = self.endpoints
        fresh: dict[str, Endpoint] = {}
        for item in endpoints:
            key = item["key"]
            endpoint = known.get(key)
            if endpoint is None or (endpoint.address, endpoint.port) != (item["address"], item["port"]):
                endpoint = Endpoint(self, item, now)
            endpoint.weight = item["weight"]
            endpoint.zone = item.get("zone", "")
            fresh[key] = endpoint
        gone = [endpoint for key, endpoint in known.items() if fresh.get(key) is not endpoint]
        for endpoint in gone:
            endpoint.removed = True
        self.endpoints = fresh
        self.version = version
        self.refresh(now)
        return gone

    def speak(self, tls: "ClientContext | None", now: float) -> list[Endpoint]:
        """Speak TLS so, or not at all, from now on; returns the endpoints that the caller closes the connections of.

        Endpoints are replaced: to another identity no connection made before may lead, and those go as endpoints go.
        """
        self.tls = tls
        items = [endpoint.item for endpoint in self.endpoints.values()]
        gone = self.update([], self.version, now)
        self.update(items, self.version, now)
        return gone

    def refresh(self, now: float) -> None:
        """Make the rotation anew; those whose ejection is over return to it."""
        members = list(self.endpoints.values())
        back, well = _NEVER, 0
        for endpoint in members:
            ejected = endpoint.ejected_until > now
            healthy = not ejected and self.is_well(endpoint)
            if healthy and not endpoint.healthy:
                endpoint.joined_at = now
            endpoint.healthy = healthy
            well += healthy
            if ejected:
                back = min(back, endpoint.ejected_until)
        self.well = well
        rotation = rotate(members, self._policy, now)
        self.changes_at = back if rotation.changes_at is None else min(back, rotation.changes_at)
        self._usable = None
        if self._kind in IN_STEPS:
            # Keys stay with their endpoints while one of them is away, so the balancer knows all and is told whom not
            # to take; also while it is one that knows endpoints which have left.
            self._build(members, [float(endpoint.weight) for endpoint in members])
            if self._balancer.endpoints != rotation.endpoints:
                self._usable = frozenset(rotation.endpoints).__contains__
        else:
            self._build(rotation.endpoints, rotation.weights)
        if self.affinity is not None:
            self.affinity.know(members)

    def _build(self, endpoints: list[Endpoint], weights: list[float]) -> None:
        wanted = (self._kind, endpoints, weights)
        if wanted != self._built_for:
            self._built_for = wanted
            kind, in_steps = BALANCERS[self._kind], IN_STEPS.get(self._kind)
            before = self._balancer.endpoints if isinstance(self._balancer, kind) else ()
            if in_steps is not None and self._soon is not None and not set(before).isdisjoint(endpoints):
                steps = self._steps = in_steps(endpoints, weights)
                self._go_on_building(steps)  # the one before goes on meanwhile
            else:
                self._steps = None
                self._balancer = kind(endpoints, weights)

    def _go_on_building(self, steps: _Steps) -> None:
        if self._steps is not steps or self._soon is None:
            return  # something else is wanted by now
        try:
            next(steps)
        except StopIteration as done:
            self._steps = None
            self._balancer = done.value
            usable = self._usable
            if usable is not None and all(map(usable, self._balancer.endpoints)):
                self._usable = None
        else:
            self._soon(partial(self._go_on_building, steps))

    def pick(self, tried: Endpoint | None = None, key: int = 0, now: float = 0.0) -> Endpoint | None:
        """Choose an endpoint, another than `tried` if there is one.

        Args:
            tried: What has just failed.
            key: What `key_of` made of the request.
            now: Monotonic seconds.
        """
        usable = self._usable
        if tried is None:
            return self._balancer.pick(usable, key, now)
        found = self._balancer.pick(lambda one: one is not tried and (usable is None or usable(one)), key, now)
        return found or self._balancer.pick(usable, key, now)

    @property
    def is_idle(self) -> bool:
        """Whether all that `state` tells is nought."""
        if self.used or self.connections or self.pending or self._unhealthy:
            return False
        return self.breaker is None or self.breaker.state.value == "closed"

    def state(self, now: float) -> dict[str, Any]:
        """How it stands now, in the words of `toska_gateway.gauges`."""
        used = [
            one
            for one in self.endpoints.values()
            if one.stats is not None or not self.is_well(one)  # pyright: ignore[reportUnnecessaryComparison]
        ]
        idle = sum(len(endpoint.idle) for endpoint in used)
        open_circuit = None if self.breaker is None else int(self.breaker.state.value != "closed")
        return {
            "values": [self.connections, idle, len(self.pending), open_circuit],
            "endpoints": {one.key: self._state_of(one, now) for one in used},
        }

    def _state_of(self, one: Endpoint, now: float) -> list[int]:
        ejected, unhealthy = one.ejected_until > now, not self.is_well(one)
        return [one.in_flight, one.requests, len(one.idle), int(ejected), int(unhealthy)]

    def shares(self, head: "RequestHead", asker: Asker, now: float) -> dict[Endpoint, float]:
        """The endpoints that would be picked for a request, with how probably; nothing is picked."""
        home = None if self.affinity is None else self.affinity.find(head)
        if home is not None:
            return {home: 1.0}
        if self.key_of is not None:
            key = self.key_of(head, asker)
            if key == self.key_of(head, asker):  # else it has none, and goes anywhere
                found = self._balancer.pick(self._usable, key, now)
                return {} if found is None else {found: 1.0}
        _, endpoints, weights = self._built_for
        usable = [
            (one, weight)
            for one, weight in zip(endpoints, weights, strict=True)
            if self._usable is None or self._usable(one)
        ]
        total = sum(weight for _, weight in usable)
        return {one: weight / total for one, weight in usable} if total else {}

    def pick_besides(self, taken: set[Endpoint | None], key: int, now: float) -> Endpoint | None:
        """Choose an endpoint that is none of those, if there is one."""
        usable = self._usable
        return self._balancer.pick(lambda one: one not in taken and (usable is None or usable(one)), key, now)

    @property
    def zone(self) -> str:
        """Whose endpoints are preferred."""
        return self._policy.zone

    @property
    def is_full(self) -> bool:
        """Whether it has all the requests in flight that it may have."""
        return 0 < self.max_requests <= self.started - self.finished

    def close_oldest_idle(self) -> bool:
        """Make room for a connection to another endpoint; tells whether there was one to close."""
        pools = [endpoint.idle for endpoint in self.endpoints.values() if endpoint.idle]
        if not pools:
            return False
        min(pools, key=lambda idle: idle[0].idle_since).pop(0).close()
        return True

    def stop_waiting(self, exchange: "Dispatch") -> None:
        """Take an exchange out of those that wait for a connection, if it is one of them."""
        with contextlib.suppress(ValueError):
            self.pending.remove(exchange)

    def tick(self, now: float) -> None:
        """A moment has passed: what is over is over."""
        if self.changes_at <= now:
            self.refresh(now)
        self.budget.tick(now, self.started)
        while self.pending and self.pending[0].queued_at + self.pending_timeout <= now:
            self.pending.popleft().give_up_waiting()

    def connect_failed(self, endpoint: Endpoint, now: float) -> bool:
        """Count a failed connect; tells whether the endpoint was ejected for it."""
        ejected = self.outliers.connect_failed(endpoint, self._all, now)
        if ejected:
            endpoint.count().ejections += 1
            self.refresh(now)
        return ejected

    def connected(self, endpoint: Endpoint, now: float) -> None:
        """A connect went well: forget the failures, and end an ejection that proved wrong."""
        if self.outliers.connected(endpoint, now):
            self.refresh(now)

    def answered(self, endpoint: Endpoint, status: int, now: float) -> bool:
        """Count an answer, or with a status of 0 that there was none; tells whether the endpoint was ejected for it."""
        if status:
            ejected = self.outliers.answered(endpoint, status, self._all, now)
        else:
            ejected = self.outliers.broke_off(endpoint, self._all, now)
        if ejected:
            endpoint.count().ejections += 1
            self.refresh(now)
        return ejected

    def judge(self, unhealthy: frozenset[str], now: float) -> None:
        """Leave out the endpoints with these keys, which fail their health checks, and no others for that."""
        self._unhealthy = unhealthy
        self.refresh(now)

    def is_well(self, endpoint: Endpoint) -> bool:
        """Whether its health check says nothing against an endpoint."""
        return endpoint.key not in self._unhealthy

    @property
    def _all(self) -> list[Endpoint]:
        return list(self.endpoints.values())

    def returns_in(self, now: float) -> int:
        """Seconds, rounded up, until the first endpoint returns; 0 if one is there, or nobody knows."""
        endpoints = self.endpoints.values()
        away = [endpoint.ejected_until for endpoint in endpoints if endpoint.ejected_until > now]
        if len(away) < len(endpoints) or not away:
            return 0
        return max(1, ceil(min(away) - now))


NOWHERE: Final = Cluster("(none)")
"""Of requests that the gateway answers itself."""
