"""Tells the mesh's events what was changed here: routing, rollouts, experiments.

Of routers over one database the one that made a change tells of it, once it is committed. They are notifications: a
router that dies before it has told leaves the history in the database, which is the truth.
"""

from collections.abc import Sequence

from toska_common.contracts.events import ExperimentChanged, RolloutChanged, RouteChanged
from toska_common.contracts.experiments import ExperimentEvent
from toska_common.contracts.rollouts import RolloutEvent
from toska_common.events.bus import EventBus

from toska_router.book import Outcome
from toska_router.parts import Parts
from toska_router.runs.store import Happened
from toska_router.stored import Author


def announce(parts: Parts, bus: EventBus) -> None:
    """Have everything that is changed from now on told."""

    def made(outcome: Outcome, author: Author) -> None:
        bus.offer(describe_change(outcome, author), key="routing")

    def happened(lines: Sequence[Happened]) -> None:
        for name, event in lines:
            bus.offer(describe_line(name, event), key=name, subject=name)

    parts.book.on_made = made
    parts.runs.store.on_happened = happened


def describe_change(outcome: Outcome, author: Author) -> RouteChanged:
    """The event that tells of a change of routing."""
    names = {
        kind: tuple(sorted({change.name for change in outcome.changes if change.kind == kind}))
        for kind in ("route", "cluster", "policy")
    }
    return RouteChanged(
        revision=outcome.revision,
        routes=names["route"],
        clusters=names["cluster"],
        policies=names["policy"],
        actor=author.actor,
        reason=author.reason,
    )


def describe_line(name: str, event: RolloutEvent | ExperimentEvent) -> RolloutChanged | ExperimentChanged:
    """The event that tells of a line of a history."""
    if isinstance(event, RolloutEvent):
        return RolloutChanged(name=name, kind=event.kind, step=event.step, by=event.by, reason=event.reason)
    return ExperimentChanged(name=name, kind=event.kind, by=event.by, reason=event.reason)
