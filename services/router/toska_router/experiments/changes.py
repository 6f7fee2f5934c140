"""What operators and leaders do to chaos experiments: each in one transaction, and told by the history."""

from datetime import timedelta

from toska_common.contracts.experiments import Experiment, ExperimentEvent, ExperimentStatus
from toska_common.contracts.routing import RouteTable
from toska_common.contracts.tallies import MAX_TALLIES, WholeCounts
from toska_common.errors import InvalidInput

from toska_router.errors import ExperimentOver, ExperimentUnderWay
from toska_router.experiments.machine import Window, add_up, advance, begin, end
from toska_router.runs.book import Check, RunsBook, find
from toska_router.runs.overlays import expiry, is_hit, routes_of
from toska_router.runs.records import ExperimentRecord
from toska_router.runs.store import Runs, RunsTransaction

BY = "experiment"
TAKEN_UP_WITHIN = timedelta(minutes=5)
"""One that waits for longer is not begun: whoever asked for it may have gone home."""


async def put_experiment(book: RunsBook, experiment: Experiment, by: str, check: Check) -> bool:
    """Begin an experiment, or one anew that is over; tells whether the name is new.

    Raises:
        ExperimentUnderWay: It is under way, or something else stands for a route.
        InvalidInput: A route or cluster is not there, or a route has a fault of its own.
        PreconditionFailed: The caller takes it for something else.
    """
    async with book.changing() as (transaction, runs):
        known = runs.experiments.get(experiment.name)
        check("" if known is None else known.version)
        if known is not None and not known.is_over:
            raise ExperimentUnderWay(f"the experiment {experiment.name} is under way; stop it first")
        run = 1 if known is None else known.status.run + 1
        status = ExperimentStatus(run=run, created_at=book.clock.now(), reason="waits for a router that leads")
        record = ExperimentRecord(experiment=experiment, status=status, revision=book.revision())
        _require_routes(record, runs, book.table())
        await _write(transaction, record, "created", by, book)
    return known is None


async def stop_experiment(book: RunsBook, name: str, by: str, check: Check) -> None:
    """End one by hand.

    Raises:
        ExperimentOver: It is over.
        NotFound: There is none of that name.
        PreconditionFailed: The caller takes it for something else.
    """
    async with book.changing() as (transaction, runs):
        record = find(runs.experiments, "experiment", name)
        check(record.version)
        if record.is_over:
            raise ExperimentOver(f"the experiment {name} is over: {record.status.reason}")
        await _end(book, transaction, record, f"stopped by {by}", by)


async def delete_experiment(book: RunsBook, name: str, check: Check) -> None:
    """Take one away that is over, with its history.

    Raises:
        ExperimentUnderWay: It is not over.
        NotFound: There is none of that name.
        PreconditionFailed: The caller takes it for something else.
    """
    async with book.changing() as (transaction, runs):
        record = find(runs.experiments, "experiment", name)
        check(record.version)
        if not record.is_over:
            raise ExperimentUnderWay(f"the experiment {name} is under way; stop it first")
        await transaction.delete("experiment", name)


async def tend(
    book: RunsBook, transaction: RunsTransaction, record: ExperimentRecord, window: Window, fence: int
) -> ExperimentRecord:
    """Look at an experiment, as the leader with this fence; returns what has become of it."""
    if record.is_over or record.revision > book.revision():
        return record  # (another router knows of changes that are on their way to us)
    now, experiment, length_s = book.clock.now(), record.experiment, record.experiment.stop.window.total_seconds()
    if record.status.phase == "pending":
        if now - record.status.created_at > TAKEN_UP_WITHIN:
            return await _end(book, transaction, record, "no router took it up while somebody expected it", BY)
        status = begin(experiment, record.status, now, expiry(now, experiment.duration))
        after = record.model_copy(update={"status": status, "fence": fence})
        window.add(book.clock.monotonic(), WholeCounts(), length_s)
        return await _write(transaction, after, "started", BY, book)
    if record.fence != fence:
        reason = "the router that guarded it leads no more, and nobody knows what happened meanwhile"
        return await _end(book, transaction, record, reason, BY)
    if not any(routes_of(record, book.table())):
        return await _end(book, transaction, record, "none of its routes is left", BY)
    whole = add_up([tally.whole for tally in await transaction.tallies(record.token)])
    window.add(book.clock.monotonic(), whole, length_s)
    status = advance(experiment, record.status, window, whole, now)
    after = record.model_copy(update={"status": status})
    if after.is_over:
        return await _write(transaction, after, status.phase, BY, book)
    if after != record:
        await transaction.put(after)
    return after


async def _end(
    book: RunsBook, transaction: RunsTransaction, record: ExperimentRecord, reason: str, by: str
) -> ExperimentRecord:
    status = end(record.status, "stopped", reason, book.clock.now())
    return await _write(transaction, record.model_copy(update={"status": status}), "stopped", by, book)


async def _write(
    transaction: RunsTransaction, record: ExperimentRecord, kind: str, by: str, book: RunsBook
) -> ExperimentRecord:
    status = record.status
    fields = {"sequence": 0, "at": book.clock.now(), "kind": kind, "run": status.run, "by": by}
    told = status if record.is_over else None
    event = ExperimentEvent.model_validate({**fields, "reason": status.reason, "status": told})
    await transaction.put(record)
    await transaction.append("experiment", record.experiment.name, event)
    return record


def _require_routes(record: ExperimentRecord, runs: Runs, table: RouteTable) -> None:
    experiment = record.experiment
    names = {route.name for route in table.routes}
    problems = [
        {"field": f"routes[{index}]", "reason": f"there is no route {name}"}
        for index, name in enumerate(experiment.routes)
        if name not in names
    ]
    problems += [
        {"field": f"clusters[{index}]", "reason": f"no route leads to a cluster {name}"}
        for index, name in enumerate(experiment.clusters)
        if not any(part.cluster == name for route in table.routes for part in route.to)
    ]
    hit = list(routes_of(record, table))
    problems += [
        {"field": "fault", "reason": f"the route {route.name} has a fault of its own"}
        for route in hit
        if route.policies.fault is not None
    ]
    if problems:
        raise InvalidInput("the experiment does not fit the routes: " + problems[0]["reason"], problems=problems)
    if len(runs.tokens) >= MAX_TALLIES:
        raise ExperimentUnderWay(
            f"{MAX_TALLIES} rollouts and experiments are under way, and gateways count for no more"
        )
    hit_names = {route.name for route in hit}
    for rollout in runs.rollouts.values():
        if not rollout.is_over and rollout.rollout.route in hit_names:
            raise ExperimentUnderWay(
                f"the rollout {rollout.rollout.name} stands for the route {rollout.rollout.route}: "
                "what a canary does under faults says nothing"
            )
    for other in runs.experiments.values():
        mine = other.experiment.name == experiment.name
        if not mine and not other.is_over and any(is_hit(other, route) for route in hit):
            raise ExperimentUnderWay(f"the experiment {other.experiment.name} hits a route of this one already")
