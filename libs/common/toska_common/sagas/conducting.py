"""One saga from its beginning to its end, on this process: forwards, and if need be backwards.

take ──▶ the function, step by step ──returns──▶ completed
              │ raises, is cancelled, runs out of time
              ▼
         the turn is remembered ──▶ each step undone, the last first ──▶ compensated, cancelled
                                          │ failed too often
                                          ▼
                                        stuck ──resumed──▶ taken anew, by anybody
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import anyio
import structlog
from pydantic import ValidationError

from toska_common import trace
from toska_common.clock import now_utc
from toska_common.contracts.sagas import FINAL, OutcomeKind, SagaFailure, SagaState
from toska_common.database import DatabaseUnavailable
from toska_common.sagas.attempts import Attempter, Outcome, Plan, failure_text
from toska_common.sagas.control import Control
from toska_common.sagas.definition import Saga
from toska_common.sagas.errors import Deadly, HistoryDiffers, JournalBroken, LeaseLost, Left, StepFailed, Turned
from toska_common.sagas.journal import Journal
from toska_common.sagas.metrics import SagaMetrics
from toska_common.sagas.runs import Run, Undone
from toska_common.sagas.slots import Holder
from toska_common.sagas.storable import require_storable, storable_text
from toska_common.sagas.store import Begun, Ended, SagaStore

log = structlog.get_logger(__name__)
T = TypeVar("T")

UNKNOWN_SAGA = "no process that asked for it knows"
"""How the reason begins why a saga is stuck that only awaits a process of another release."""
MOST_DEATHS = 10
"""So many processes may die in the middle of an attempt, for whatever reason, before it is taken for the cause."""
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Do something with the database, as often as it takes: sagas wait for it, as they wait for processes."""
    failed = 0
    while True:
        try:
            return await call()
        except DatabaseUnavailable as error:
            pause_s = _PAUSES_S[min(failed, len(_PAUSES_S) - 1)]
            log.warning("saga_waits_for_database", reason=error.detail, pause_s=pause_s)
            failed += 1
            await anyio.sleep(pause_s)


class Conductor:
    """Runs the sagas that are given to one process, under one hold on a slot.

    Args:
        definitions: What it knows, by name and version.
        entered: Makes a saga known that runs here, for as long as it does.
        leaving: Whether the process is about to stop.
    """

    def __init__(
        self,
        *,
        service: str,
        store: SagaStore,
        holder: Holder,
        definitions: Mapping[tuple[str, int], Saga[Any, Any]],
        metrics: SagaMetrics,
        entered: Callable[[str, Control], AbstractContextManager[None]],
        leaving: Callable[[], bool],
        concurrency: int,
    ) -> None:
        self._service = service
        self._store = store
        self._holder = holder
        self._definitions = definitions
        self._metrics = metrics
        self._entered = entered
        self._leaving = leaving
        self._places = anyio.Semaphore(concurrency)

    async def conduct(self, saga_id: str, journal: Journal) -> bool:
        """Run one saga; whether it has ended, so that nobody needs to run it again."""
        structlog.contextvars.bind_contextvars(saga=saga_id)
        try:
            row = await patiently(partial(self._store.take, saga_id, self._holder))
            if row.state in FINAL:
                return True
            return await self._run(row, journal)
        except Left as error:
            log.info("saga_left", reason=str(error))
        except Exception:
            # Whatever this is, it is ours; the saga stays where it is, for the next release.
            log.exception("saga_conducting_failed")
            await self._stick(saga_id, "", "an error of the mesh's own; see the log")
        return False

    async def _run(self, row: Any, journal: Journal) -> bool:
        saga = self._definitions.get((row.name, row.version))
        if saga is None:
            await self._stick(row.id, row.name, f"{UNKNOWN_SAGA} {row.name} version {row.version}")
            return False
        control = Control(row.deadline_at, cancelled=row.cancel_reason is not None)
        context = trace.parse_traceparent(row.traceparent) or trace.new_trace()
        trace.current.set(context)
        notes = _Notes(self, row)
        attempter = Attempter(notes, control, context, places=self._places, leaving=self._leaving)
        run = Run(
            row.id,
            service=self._service,
            journal=journal,
            attempter=attempter,
            control=control,
            resumes=row.resumes,
        )
        with self._entered(row.id, control), self._metrics.active(row.name).track_inprogress():
            try:
                await self._there_and_back(notes, saga, run, journal)
            except HistoryDiffers as error:
                await self._stick(row.id, row.name, f"its function does not do what it did before; {error}", notes)
            except Deadly as error:
                await self._stick(row.id, row.name, str(error), notes)
            except JournalBroken as error:
                await self._stick(row.id, row.name, f"its journal failed: {error}", notes)
            except Undone as error:
                await self._stick(row.id, row.name, str(error), notes)
            except LeaseLost:
                raise
            except Left:
                await notes.flush()
                raise
            else:
                return True
        return False

    async def _there_and_back(self, notes: "_Notes", saga: Saga[Any, Any], run: Run, journal: Journal) -> None:
        row = notes.row
        result, failure = await self._forwards(row, saga, run)
        if failure is None:
            await self._finish(notes, SagaState.COMPLETED, result)
            return
        turn = partial(self._turn, notes, failure)
        # Remembered, so that a saga that once turned back never goes forwards again, whatever its function says later.
        remembered = SagaFailure.model_validate(await journal.remember("turn back", turn))
        await run.undo()
        cancelled = remembered.outcome == OutcomeKind.CANCELLED.value
        await self._finish(notes, SagaState.CANCELLED if cancelled else SagaState.COMPENSATED)

    async def _forwards(self, row: Any, saga: Saga[Any, Any], run: Run) -> tuple[Any, SagaFailure | None]:
        result: Any = None
        try:
            value = saga.input.validate_python(row.input)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise HistoryDiffers(f"it does not take the input that this saga was started with: {problems}") from error
        try:
            returned = await saga.function(value, run)
            result = require_storable(saga.result.dump_python(saga.result.validate_python(returned), mode="json"))
        except Turned:
            pass  # `run.turned` says so, too, if the function went on after it
        except StepFailed as error:
            return None, SagaFailure(step=error.step, outcome=error.outcome, detail=error.detail)
        except Exception as error:  # noqa: BLE001 - whatever a saga raises is why it turns back
            return None, SagaFailure(step="", outcome="raised", detail=failure_text(error))
        if run.turned is not None:
            return None, SagaFailure(step=run.turned.step, outcome=run.turned.outcome, detail=run.turned.detail)
        return result, None

    async def _turn(self, notes: "_Notes", failure: SagaFailure) -> Any:
        before, saga_id = notes.taken(), notes.row.id
        await patiently(partial(self._store.turn, saga_id, self._holder, failure, before))
        log.warning(
            "saga_turned_back", saga=saga_id, failed_step=failure.step, outcome=failure.outcome, detail=failure.detail
        )
        return failure.model_dump(mode="json")

    async def _finish(self, notes: "_Notes", state: SagaState, result: Any = None) -> None:
        row, before = notes.row, notes.taken()
        await patiently(partial(self._store.finish, row.id, self._holder, state, result, before))
        self._metrics.ended(row.name, state)
        log.info("saga_ended", name=row.name, state=state.value)

    async def _stick(self, saga_id: str, name: str, reason: str, notes: "_Notes | None" = None) -> None:
        before = None if notes is None else notes.taken()
        try:
            await patiently(partial(self._store.stick, saga_id, self._holder, storable_text(reason), before))
        except Left:
            return
        self._metrics.ended(name, SagaState.STUCK)
        log.error("saga_stuck", name=name, reason=reason)

    # What `_Notes` writes.

    async def note_begin(self, row: Any, plan: Plan, before: Ended | None) -> None:
        attempt = plan.attempt
        begun = Begun(
            plan.sequence,
            attempt.step,
            plan.occurrence,
            plan.compensation,
            attempt.number,
            attempt.idempotency_key,
        )
        times = await patiently(partial(self._store.begin, row.id, self._holder, begun, before))
        if times > MOST_DEATHS * (1 + row.resumes):
            raise Deadly(f"processes that ran {plan.title} died in the middle of it, {times - 1} times")

    async def note_end(self, row: Any, ended: Ended) -> None:
        await patiently(partial(self._store.end, row.id, self._holder, ended))

    def count_attempt(self, row: Any, plan: Plan, kind: OutcomeKind, seconds: float) -> None:
        self._metrics.attempted(row.name, plan.attempt.step, kind, seconds, compensation=plan.compensation)


class _Notes:
    """The notes of one saga. How an attempt ended goes with the next thing that is written, as a rule at once."""

    def __init__(self, conductor: Conductor, row: Any) -> None:
        self.row = row
        self._conductor = conductor
        self._ended: Ended | None = None

    def taken(self) -> Ended | None:
        """What is not written yet, to be written by the caller."""
        ended, self._ended = self._ended, None
        return ended

    async def begin(self, plan: Plan) -> None:
        await self._conductor.note_begin(self.row, plan, self.taken())

    def end(self, plan: Plan, outcome: Outcome, shown: Any, seconds: float) -> None:
        self._ended = Ended(plan.sequence, outcome.kind, outcome.detail, shown, now_utc())
        self._conductor.count_attempt(self.row, plan, outcome.kind, seconds)

    def recall(self, plan: Plan, outcome: Outcome, shown: Any) -> None:
        self._ended = Ended(plan.sequence, outcome.kind, outcome.detail, shown, now_utc())

    async def flush(self) -> None:
        if (ended := self.taken()) is not None:
            await self._conductor.note_end(self.row, ended)
