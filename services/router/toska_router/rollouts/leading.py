"""What a leader does about one rollout each time it looks: take it up, judge it, or give way to a change by hand."""

from toska_common.contracts.routing import Route

from toska_router.rollouts.adoption import adopted
from toska_router.rollouts.changes import append, carry_out, find_route, read_sides
from toska_router.rollouts.machine import Move, advance, begin, supersede
from toska_router.runs.book import RunsBook
from toska_router.runs.overlays import why_not
from toska_router.runs.records import RolloutRecord
from toska_router.runs.store import RunsTransaction

BY = "rollout"


async def tend(book: RunsBook, transaction: RunsTransaction, record: RolloutRecord, elapsed_s: float) -> RolloutRecord:
    """Look at a rollout, `elapsed_s` after the last look of the same leader; returns what has become of it."""
    if not record.is_open or record.revision > book.revision():
        return record  # (another router knows of changes that are on their way to us)
    table = book.table()
    route = find_route(table, record.rollout.route)
    reason = why_not(record, route, table)
    if reason:
        return await _give_way(book, transaction, record, route, reason)
    if record.is_over:
        return record
    if record.phase == "pending":
        return await carry_out(transaction, record, begin(record.progress), book, BY)
    move = advance(record.rollout, record.progress, await read_sides(transaction, record), elapsed_s)
    return await carry_out(transaction, record, move, book, BY)


async def note_follower(book: RunsBook, transaction: RunsTransaction, record: RolloutRecord, router: str) -> None:
    """Tell the history that another router leads now."""
    if not record.is_over and record.phase != "pending":
        says = f"{router} goes on where the router before it ended"
        await append(transaction, record, "taken_over", BY, says, book.clock.now())


async def _give_way(
    book: RunsBook, transaction: RunsTransaction, record: RolloutRecord, route: Route | None, reason: str
) -> RolloutRecord:
    """The route is another one: what an operator, or our own adoption, has written holds."""
    over = record.is_over and record.phase != "succeeded"
    taken = route is not None and record.phase == "succeeded" and route.to == adopted(route, record.rollout.canary).to
    if over or taken:
        after = record.model_copy(update={"released": True})
        await transaction.put(after)
        return after
    move: Move = supersede(record.progress, reason)
    return await carry_out(transaction, record, move, book, BY)
