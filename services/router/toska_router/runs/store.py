"""Rollouts, experiments, their history and what gateways have counted, in the router's database.

Until something is stored there is no database, and then SQLAlchemy is not loaded. Transactions that write exclude one
another, so what is decided in one is decided on what holds; a leader that another has followed writes nothing more.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync
from toska_common.contracts.experiments import ExperimentEvent
from toska_common.contracts.rollouts import RolloutEvent
from toska_common.contracts.tallies import Tally, TallyReport
from toska_common.database import Database

from toska_router.runs.records import ExperimentRecord, Kind, LeaderRecord, RolloutRecord
from toska_router.stored import readable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

KEPT_EVENTS = 500
"""Of each history."""
_LEADER = "leader"

Record = RolloutRecord | ExperimentRecord
Happened = tuple[str, RolloutEvent | ExperimentEvent]
"""A line that was written into the history of the rollout or experiment of this name."""


class NotLeading(Exception):
    """Another router leads now: what was about to be written is its business."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Everything, by name."""

    rollouts: Mapping[str, RolloutRecord] = field(default_factory=dict[str, RolloutRecord])
    experiments: Mapping[str, ExperimentRecord] = field(default_factory=dict[str, ExperimentRecord])
    leader: LeaderRecord = field(default_factory=LeaderRecord)

    @property
    def is_open(self) -> bool:
        """Whether a leader has something to do."""
        return any(one.is_open for one in (*self.rollouts.values(), *self.experiments.values()))

    @property
    def tokens(self) -> frozenset[str]:
        """What gateways count under now."""
        running = (*self.rollouts.values(), *self.experiments.values())
        return frozenset(one.token for one in running if not one.is_over)


class RunsTransaction:
    """What is read and written while nobody else writes."""

    def __init__(self, connection: "AsyncConnection", statements: Any) -> None:
        self._connection = connection
        self._statements = statements
        self.happened: list[Happened] = []

    async def load(self) -> Runs:
        """Everything that holds now."""
        return read_runs(await self._statements.list_runs(self._connection))

    async def put(self, record: Record) -> None:
        """Write one as it is now."""
        kind, name = _place(record)
        await self._statements.put_run(self._connection, kind, name, record.model_dump(mode="json"))

    async def delete(self, kind: Kind, name: str) -> None:
        """Take one away, with its history."""
        await self._statements.delete_run(self._connection, kind, name)

    async def append(self, kind: Kind, name: str, event: RolloutEvent | ExperimentEvent) -> None:
        """Write the next line of a history; its number is given here."""
        await self._statements.append_event(self._connection, kind, name, event.model_dump(mode="json"), KEPT_EVENTS)
        self.happened.append((name, event))

    async def tallies(self, token: str) -> list[Tally]:
        """What each gateway has counted under a token."""
        return [Tally.model_validate(body) for body in await self._statements.list_tallies(self._connection, token)]

    async def forget_tallies(self, but: Collection[str]) -> None:
        """Forget what was counted under any other token."""
        await self._statements.forget_tallies(self._connection, list(but))

    async def hear(self, report: TallyReport, tokens: Collection[str]) -> None:
        """Keep what a gateway has counted under these tokens, if that is news."""
        for tally in report.tallies:
            if tally.token in tokens:
                body = tally.model_dump(mode="json", exclude_defaults=True)
                await self._statements.put_tally(self._connection, tally.token, report.epoch, report.sequence, body)

    async def take_lead(self, router: str) -> int:
        """Be the leader from now on; returns the fence that tells it from all before."""
        # Our own number, and not that of the registry's lock: that begins anew with a new registry.
        body = await self._statements.find_run(self._connection, _LEADER, _LEADER)
        fence = 1 if body is None else LeaderRecord.model_validate(body).fence + 1
        record = LeaderRecord(fence=fence, router=router).model_dump(mode="json")
        await self._statements.put_run(self._connection, _LEADER, _LEADER, record)
        return fence

    async def require_lead(self, fence: int) -> None:
        """Go on only if no later leader has been here.

        Raises:
            NotLeading: One has.
        """
        body = await self._statements.find_run(self._connection, _LEADER, _LEADER)
        if body is not None and LeaderRecord.model_validate(body).fence > fence:
            raise NotLeading


class RunsStore:
    """In a database that other routers may share; every method raises `DatabaseUnavailable` if it does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loaded: Any = None
        self.on_happened: Callable[[Sequence[Happened]], None] = lambda _: None

    async def load(self) -> Runs:
        """Everything that holds now."""
        if self._database.is_absent():
            return Runs()
        statements = await self._statements()
        async with self._database.reading() as connection:
            return read_runs(await statements.list_runs(connection))

    async def list_events(self, kind: Kind, name: str, limit: int) -> list[Mapping[str, Any]]:
        """The newest lines of a history, in their order."""
        if self._database.is_absent():
            return []
        statements = await self._statements()
        async with self._database.reading() as connection:
            return await statements.list_events(connection, kind, name, limit)

    @asynccontextmanager
    async def changing(self) -> AsyncGenerator[RunsTransaction]:
        """A transaction that excludes all others, committed when the block ends well."""
        statements = await self._statements()
        async with self._database.writing() as connection:
            transaction = RunsTransaction(connection, statements)
            yield transaction
        if transaction.happened:
            self.on_happened(transaction.happened)

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever there may be news, for ever."""
        await self._database.watch(on_change)

    async def _statements(self) -> Any:
        if self._loaded is None:
            self._loaded = await run_sync(import_module, "toska_router.runs.statements")
        return self._loaded


def read_runs(rows: Collection[tuple[str, str, Mapping[str, Any]]]) -> Runs:
    """Everything, as the table has it.

    Raises:
        ConfigurationError: Another release wrote what this one cannot read.
    """
    rollouts: dict[str, RolloutRecord] = {}
    experiments: dict[str, ExperimentRecord] = {}
    leader = LeaderRecord()
    for kind, name, body in rows:
        with readable(kind, name):
            if kind == "rollout":
                rollouts[name] = RolloutRecord.model_validate(body)
            elif kind == "experiment":
                experiments[name] = ExperimentRecord.model_validate(body)
            elif kind == _LEADER:
                leader = LeaderRecord.model_validate(body)
    return Runs(rollouts, experiments, leader)


def _place(record: Record) -> tuple[Kind, str]:
    if isinstance(record, RolloutRecord):
        return "rollout", record.rollout.name
    return "experiment", record.experiment.name
