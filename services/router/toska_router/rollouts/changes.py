"""What operators do to rollouts: each in one transaction, decided on what holds then, and told by the history."""

from datetime import datetime
from typing import Any, Literal

from toska_common.contracts.rollouts import Evidence, Rollout, RolloutEvent, RolloutStatus
from toska_common.contracts.routing import Route, RouteTable
from toska_common.contracts.tallies import MAX_TALLIES
from toska_common.errors import InvalidInput

from toska_router.errors import RolloutUnderWay
from toska_router.rollouts.counts import Side, add_up
from toska_router.rollouts.machine import Move, Sides, pause, percent_of, promote, resume, roll_back
from toska_router.runs.book import Check, RunsBook, find
from toska_router.runs.overlays import in_force, is_hit
from toska_router.runs.records import RolloutRecord, is_split_of
from toska_router.runs.store import Runs, RunsTransaction

Action = Literal["promote", "pause", "resume", "rollback"]


async def put_rollout(book: RunsBook, rollout: Rollout, by: str, check: Check) -> bool:
    """Begin a rollout, or one anew that is over; tells whether the name is new.

    Raises:
        InvalidInput: Its route does not lead where it says, or a cluster is not there.
        PreconditionFailed: The caller takes it for something else.
        RolloutUnderWay: It is under way, or something else stands for the route.
    """
    async with book.changing() as (transaction, runs):
        known = runs.rollouts.get(rollout.name)
        check("" if known is None else known.version)
        if known is not None and not known.is_over:
            raise RolloutUnderWay(f"the rollout {rollout.name} is under way; roll it back, or let it come to its end")
        table = book.table()
        route = _require_route(rollout, table)
        _require_free(rollout, route, runs, table)
        now = book.clock.now()
        record = RolloutRecord(
            rollout=rollout,
            run=1 if known is None else known.run + 1,
            to=route.to,
            revision=book.revision(),
            created_at=now,
            changed_at=now,
        )
        await transaction.put(record)
        await append(transaction, record, "created", by, record.reason, now)
    return known is None


async def delete_rollout(book: RunsBook, name: str, check: Check) -> None:
    """Take one away that is over, with its history; the route's own weights hold again.

    Raises:
        NotFound: There is none of that name.
        PreconditionFailed: The caller takes it for something else.
        RolloutUnderWay: It is not over.
    """
    async with book.changing() as (transaction, runs):
        record = find(runs.rollouts, "rollout", name)
        check(record.version)
        if not record.is_over and record.phase != "pending":
            raise RolloutUnderWay(f"the rollout {name} is under way; roll it back first")
        await transaction.delete("rollout", name)


async def act(book: RunsBook, name: str, action: Action, by: str, check: Check) -> None:
    """Promote, pause, resume or roll back by hand.

    Raises:
        NotFound: There is none of that name.
        NotUnderWay: It is in no state for that.
        PreconditionFailed: The caller takes it for something else.
    """
    async with book.changing() as (transaction, runs):
        record = find(runs.rollouts, "rollout", name)
        check(record.version)
        sides = await read_sides(transaction, record)
        await carry_out(transaction, record, _move(record, action, sides, by), book, by)


async def carry_out(
    transaction: RunsTransaction, record: RolloutRecord, move: Move, book: RunsBook, by: str
) -> RolloutRecord:
    """Write what has become of a rollout, and tell the history if something has."""
    now = book.clock.now()
    evidence = move.evidence or record.evidence
    after = record.after(move.progress, evidence=evidence)
    if move.kind is not None:
        changes: dict[str, Any] = {"changed_at": now}
        if move.kind == "started":
            changes["started_at"] = now
        if move.progress.is_over:
            changes["ended_at"] = now
        after = after.model_copy(update=changes)
        if after.phase == "superseded" or (after.phase == "rolled_back" and not _had_canary(after)):
            after = after.model_copy(update={"released": True})  # the route's own words say the same
        if move.kind == "promoted":
            after = after.model_copy(update={"evidence": None})  # of the step before
        # Of the step that it happened in, which a promotion has left.
        await append(transaction, record, move.kind, by, move.progress.reason, now, move.evidence)
    if after != record:
        await transaction.put(after)
    return after


async def read_sides(transaction: RunsTransaction, record: RolloutRecord) -> Sides:
    """What was counted in the present step, by all gateways."""
    tallies = await transaction.tallies(record.token)
    rollout = record.rollout

    def side(cluster: str) -> Side:
        return add_up(tally.cells[cluster] for tally in tallies if cluster in tally.cells)

    return Sides(side(rollout.canary), side(rollout.baseline))


def status_of(record: RolloutRecord, table: RouteTable) -> RolloutStatus:
    """How far a rollout is, for people."""
    route = find_route(table, record.rollout.route)
    return RolloutStatus(
        phase=record.phase,
        run=record.run,
        step=record.step,
        percent=percent_of(record.rollout, record.progress),
        watched_seconds=round(record.watched_s, 1),
        created_at=record.created_at,
        started_at=record.started_at,
        changed_at=record.changed_at,
        ended_at=record.ended_at,
        reason=record.reason,
        in_force=route is not None and in_force(record, route, table),
        evidence=record.evidence,
    )


def find_route(table: RouteTable, name: str) -> Route | None:
    """An operator's or automatic route of that name."""
    return next((route for route in table.routes if route.name == name), None)


def _move(record: RolloutRecord, action: Action, sides: Sides, by: str) -> Move:
    if action == "promote":
        return promote(record.rollout, record.progress, sides, by)
    if action == "rollback":
        return roll_back(record.rollout, record.progress, sides, by)
    return pause(record.progress, by) if action == "pause" else resume(record.progress, by)


def _had_canary(record: RolloutRecord) -> bool:
    return any(part.cluster == record.rollout.canary and part.when is None and part.weight for part in record.to)


def _require_route(rollout: Rollout, table: RouteTable) -> Route:
    problems: list[dict[str, str]] = []
    for field in ("baseline", "canary"):
        name: str = getattr(rollout, field)
        if name not in table.clusters:
            problems.append({"field": field, "reason": f"there is no cluster {name}"})
    route = find_route(table, rollout.route)
    if route is None:
        problems.append({"field": "route", "reason": f"there is no route {rollout.route}"})
    elif not route.to or not is_split_of(route, frozenset({rollout.baseline, rollout.canary})):
        reason = f"{rollout.route} does not lead to {rollout.baseline}, or to that and {rollout.canary} alone"
        problems.append({"field": "route", "reason": reason})
    if problems or route is None:
        raise InvalidInput("the rollout does not fit the routes: " + problems[0]["reason"], problems=problems)
    return route


def _require_free(rollout: Rollout, route: Route, runs: Runs, table: RouteTable) -> None:
    if len(runs.tokens) >= MAX_TALLIES:
        raise RolloutUnderWay(f"{MAX_TALLIES} rollouts and experiments are under way, and gateways count for no more")
    for other in runs.rollouts.values():
        holds = not other.is_over or in_force(other, route, table)
        if other.rollout.name != rollout.name and other.rollout.route == route.name and holds:
            raise RolloutUnderWay(f"the rollout {other.rollout.name} stands for the route {route.name}")
    for experiment in runs.experiments.values():
        if not experiment.is_over and is_hit(experiment, route):
            raise RolloutUnderWay(
                f"the experiment {experiment.experiment.name} puts faults on the route {route.name}: "
                "what a canary does under them says nothing"
            )


async def append(
    transaction: RunsTransaction,
    record: RolloutRecord,
    kind: str,
    by: str,
    reason: str,
    at: datetime,
    evidence: Evidence | None = None,
) -> None:
    """Write a line of a rollout's history."""
    fields = {"sequence": 0, "at": at, "kind": kind, "run": record.run, "step": record.step, "by": by}
    event = RolloutEvent.model_validate({**fields, "reason": reason, "evidence": evidence})
    await transaction.append("rollout", record.rollout.name, event)
