"""What rollouts and experiments make of operators' routes: pure, so that any router of the same inputs serves the same.

An operator's route is never changed by it. A rollout stands for the route's weights for as long as the route leads
where it led when the rollout began; an experiment adds a fault. Both let gateways count (`policies.watch`).
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from toska_common.contracts.routing import Fault, Policies, Route, RouteOverlay, RouteTable, WeightedCluster

from toska_router.rollouts.machine import percent_of
from toska_router.runs.records import ExperimentRecord, RolloutRecord
from toska_router.runs.store import Runs

PARTS = 10_000
"""Of the traffic: weights that rollouts set are hundredths of a percent."""


class Overlays:
    """Remembers the last table it made: rollouts change their counts every second, and hardly ever their weights."""

    def __init__(self, runs: Callable[[], Runs]) -> None:
        self._runs = runs
        self._made_of: tuple[RouteTable, object] | None = None
        self._made = RouteTable()

    def apply(self, table: RouteTable) -> RouteTable:
        """The table as gateways are given it."""
        runs = self._runs()
        shape = _shape(runs)
        if self._made_of is None or self._made_of[0] is not table or self._made_of[1] != shape:
            self._made, self._made_of = overlay_table(table, runs), (table, shape)
        return self._made


def overlay_table(table: RouteTable, runs: Runs) -> RouteTable:
    """The table as gateways are given it; routes that nothing stands for stay the very same objects."""
    if not runs.rollouts and not runs.experiments:
        return table
    changed = False
    routes: list[Route] = []
    for route in table.routes:
        overlaid = overlay_route(route, runs, table)
        changed = changed or overlaid is not route
        routes.append(overlaid)
    return table.model_copy(update={"routes": tuple(routes)}) if changed else table


def overlay_route(route: Route, runs: Runs, table: RouteTable) -> Route:
    """A route with what stands for it."""
    for rollout in runs.rollouts.values():
        if in_force(rollout, route, table):
            route = _with_weights(route, rollout)
    for experiment in runs.experiments.values():
        if experiment.status.phase == "running" and is_hit(experiment, route):
            route = _with_fault(route, experiment)
    return route


def list_overlays(route: Route, runs: Runs, table: RouteTable) -> list[RouteOverlay]:
    """What stands for a route, for people."""
    found: list[RouteOverlay] = []
    for name, rollout in runs.rollouts.items():
        if in_force(rollout, route, table):
            percent = percent_of(rollout.rollout, rollout.progress)
            says = f"{percent:g}% to {rollout.rollout.canary}, the rest to {rollout.rollout.baseline}"
            found.append(RouteOverlay(kind="rollout", name=name, says=says, to=_with_weights(route, rollout).to))
    for name, experiment in runs.experiments.items():
        if experiment.status.phase == "running" and is_hit(experiment, route):
            says = f"faults on purpose until {experiment.status.ends_at}"
            found.append(RouteOverlay(kind="experiment", name=name, says=says, until=experiment.status.ends_at))
    return found


def in_force(record: RolloutRecord, route: Route, table: RouteTable) -> bool:
    """Whether a rollout stands for this route's weights."""
    return (
        route.name == record.rollout.route
        and not record.released
        and record.phase != "pending"
        and why_not(record, route, table) == ""
    )


def why_not(record: RolloutRecord, route: Route | None, table: RouteTable) -> str:
    """Why a rollout cannot stand for its route any more; empty if it can."""
    if route is None:
        return f"the route {record.rollout.route} is gone"
    if route.to != record.to:
        return f"the route {record.rollout.route} was changed by hand: it leads elsewhere than when the rollout began"
    for name in (record.rollout.baseline, record.rollout.canary):
        if name not in table.clusters:
            return f"the cluster {name} is gone"
    return ""


def is_hit(record: ExperimentRecord, route: Route) -> bool:
    """Whether an experiment concerns a route."""
    experiment = record.experiment
    return route.name in experiment.routes or bool({*experiment.clusters} & {part.cluster for part in route.to})


def expiry(started_at: datetime, duration: timedelta) -> datetime:
    """When a fault ends at the latest; a whole second, as times are written."""
    end = started_at + duration
    return end if not end.microsecond else end.replace(microsecond=0) + timedelta(seconds=1)


def _with_weights(route: Route, record: RolloutRecord) -> Route:
    rollout = record.rollout
    canary = round(percent_of(rollout, record.progress) * PARTS / 100)
    weights = {rollout.canary: canary, rollout.baseline: PARTS - canary}
    shares = [WeightedCluster(cluster=name, weight=weight) for name, weight in weights.items() if weight]
    to = (*(part for part in route.to if part.when is not None), *shares)
    if record.is_over:
        return route.model_copy(update={"to": to})
    return route.model_copy(update={"to": to, "policies": _watched(route.policies, record.token)})


def _with_fault(route: Route, record: ExperimentRecord) -> Route:
    hit = tuple(name for name in record.experiment.clusters if any(part.cluster == name for part in route.to))
    fault: Fault = record.experiment.fault.model_copy(update={"until": record.status.ends_at, "clusters": hit})
    policies = _watched(route.policies, record.token)
    return route.model_copy(update={"policies": policies.model_copy(update={"fault": fault})})


def _shape(runs: Runs) -> object:
    """What of rollouts and experiments overlays follow from."""
    rollouts = [(one.rollout, one.token, one.phase, one.released, one.to) for one in runs.rollouts.values()]
    experiments = [
        (one.experiment, one.token, one.status.phase, one.status.ends_at) for one in runs.experiments.values()
    ]
    return rollouts, experiments


def _watched(policies: Policies, token: str) -> Policies:
    return policies.model_copy(update={"watch": token})


def routes_of(record: ExperimentRecord, table: RouteTable) -> Iterator[Route]:
    """The routes that an experiment concerns."""
    return (route for route in table.routes if is_hit(record, route))
