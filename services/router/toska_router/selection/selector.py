"""Choosing an endpoint as a gateway would, for clients that balance by themselves.

The endpoints are those of the newest snapshot, so whatever is unhealthy in the registry is not among them; the
strategies are the data plane's own (`toska_common.balancing`). A balancer is kept for as long as its endpoints are.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from anyio.lowlevel import checkpoint
from toska_common.balancing import Balancer, LatencyAverage, RotationPolicy, rotate
from toska_common.balancing.base import hash_of
from toska_common.balancing.kinds import BALANCERS, IN_STEPS
from toska_common.clock import Clock
from toska_common.contracts.routing import ClusterEndpoints, Endpoint, RouteTable
from toska_common.contracts.routing.clusters import Balancer as Strategy
from toska_common.contracts.selection import Outcome, Selected, SelectReport, SelectRequest
from toska_common.errors import InvalidInput, NotFound

from toska_router.errors import NoEndpoint
from toska_router.publisher import Publisher
from toska_router.selection.figures import Figures, FiguresBook, Place

OWN_ZONE: Final = "local"
MAX_BALANCERS: Final = 1000
"""Those that were asked for last are kept."""


class Candidate:
    """An endpoint as the balancers see it."""

    __slots__ = ("_clock", "endpoint", "figures", "healthy", "joined_at", "key", "weight", "zone")

    def __init__(self, endpoint: Endpoint, figures: Figures, clock: Clock) -> None:
        self.endpoint = endpoint
        self.figures = figures
        self.key, self.weight, self.zone = endpoint.key, endpoint.weight, endpoint.zone
        self.healthy, self.joined_at = True, 0.0
        self._clock = clock

    @property
    def in_flight(self) -> int:
        """Requests that it has now."""
        return self.figures.in_flight(self._clock.monotonic())

    @property
    def latency(self) -> LatencyAverage:
        """What to expect of it."""
        return self.figures.latency


class _Target(NamedTuple):
    kind: str
    name: str


class _Kept(NamedTuple):
    version: str
    balancer: Balancer[Candidate]


class Selector:
    """Chooses endpoints, and takes what came of requests.

    Args:
        publisher: Has the newest snapshot.
        instances: The endpoints of each service of the registry.
        clock: Of loads and latencies.
    """

    def __init__(
        self, publisher: Publisher, instances: Callable[[], Mapping[str, ClusterEndpoints]], clock: Clock
    ) -> None:
        self._publisher = publisher
        self._instances = instances
        self._clock = clock
        self._figures = FiguresBook()
        self._kept: OrderedDict[tuple[_Target, str, str], _Kept] = OrderedDict()

    async def select(self, asked: SelectRequest) -> Selected:
        """The endpoint that a strategy chooses; it counts as having one request more until that is reported.

        Raises:
            NoSnapshotYet: The registry was not seen yet.
            NotFound: There is no such cluster or service.
            InvalidInput: The strategy goes by a key, and there is none.
            NoEndpoint: There is none, or all are excluded.
        """
        snapshot = self._publisher.get_snapshot()
        target = _target_of(asked)
        pool = self._get_pool(target)
        strategy, zone = self._words(asked, snapshot.table)
        if strategy in IN_STEPS and asked.hash_key is None:
            reason = f"{strategy} goes by a key: the client's address, or what else its requests are told apart by"
            raise InvalidInput(reason, problems=[{"field": "hash_key", "reason": reason}])
        balancer = await self._get_balancer(target, strategy, zone, pool)
        excluded = frozenset(asked.exclude)

        def usable(one: Candidate) -> bool:
            return one.key not in excluded and f"{one.endpoint.address}:{one.endpoint.port}" not in excluded

        now = self._clock.monotonic()
        found = balancer.pick(usable if excluded else None, hash_of((asked.hash_key or "").encode()), now)
        if found is None:
            raise NoEndpoint(f"the {target.kind} {target.name} has no endpoint" + (" left" if pool.endpoints else ""))
        found.figures.selected(now)
        return Selected(
            endpoint=found.endpoint,
            key=found.key,
            strategy=strategy,
            cluster=asked.cluster,
            service=asked.service,
            version=self._publisher.version,
            figures=found.figures.show(now),
        )

    def report(self, report: SelectReport) -> int:
        """Take what came of requests; returns of how many entries the endpoint is still there."""
        now = self._clock.monotonic()
        taken = 0
        for outcome in report.outcomes:
            endpoint = self._find_endpoint(outcome)
            if endpoint is not None:
                self._figures.of(endpoint).report(report.reporter, outcome, now)
                taken += 1
        return taken

    def count(self, reporter: str, cluster: str, loads: Mapping[Place, tuple[int, int, int]]) -> None:
        """Take requests, failures and what is in flight of a cluster's endpoints, by address and port."""
        pool = self._publisher.pools.get(cluster)
        now = self._clock.monotonic()
        for endpoint in () if pool is None else pool.endpoints:
            found = loads.get((endpoint.address, endpoint.port))
            if found is not None:
                self._figures.of(endpoint).count(reporter, *found, now)

    def _find_endpoint(self, outcome: Outcome) -> Endpoint | None:
        pool = self._find_pool(_target_of(outcome))
        found = () if pool is None else pool.endpoints
        return next((endpoint for endpoint in found if endpoint.key == outcome.endpoint), None)

    def _find_pool(self, target: _Target) -> ClusterEndpoints | None:
        pools = self._publisher.pools if target.kind == "cluster" else self._instances()
        return pools.get(target.name)

    def _get_pool(self, target: _Target) -> ClusterEndpoints:
        pool = self._find_pool(target)
        if pool is None:
            raise NotFound(f"there is no {target.kind} {target.name}")
        return pool

    def _words(self, asked: SelectRequest, table: RouteTable) -> tuple[Strategy, str]:
        cluster = table.clusters.get(asked.cluster or "")
        if cluster is None:
            return asked.strategy or "least_request", asked.zone
        own = (
            "" if cluster.zone == OWN_ZONE else cluster.zone
        )  # that of each gateway; which is the client's it must say
        return asked.strategy or cluster.balancer, asked.zone or own

    async def _get_balancer(
        self, target: _Target, strategy: str, zone: str, pool: ClusterEndpoints
    ) -> Balancer[Candidate]:
        key = target, strategy, zone
        kept = self._kept.get(key)
        if kept is None or kept.version != pool.version:
            members = [Candidate(endpoint, self._figures.of(endpoint), self._clock) for endpoint in pool.endpoints]
            kept = _Kept(pool.version, await _build(members, strategy, zone, self._clock.monotonic()))
            self._kept[key] = kept
            if len(self._kept) > MAX_BALANCERS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept.balancer


def _target_of(asked: SelectRequest | Outcome) -> _Target:
    if asked.cluster is not None:
        return _Target("cluster", asked.cluster)
    return _Target("service", asked.service or "")


async def _build(members: list[Candidate], strategy: str, zone: str, now: float) -> Balancer[Candidate]:
    rotation = rotate(members, RotationPolicy(zone=zone), now)
    in_steps = IN_STEPS.get(strategy)
    if in_steps is None:
        return BALANCERS[strategy](rotation.endpoints, rotation.weights)
    steps = in_steps(rotation.endpoints, rotation.weights)
    while True:  # the ring of a thousand endpoints takes 60 ms
        try:
            next(steps)
        except StopIteration as done:
            return done.value
        await checkpoint()
