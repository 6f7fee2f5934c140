"""One attempt of an action or of a compensation: noted, made within its limits, and its outcome told as JSON."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import anyio
import structlog
from pydantic import BaseModel, TypeAdapter

from toska_common import trace
from toska_common.contracts.sagas import OutcomeKind
from toska_common.redaction import redact_fields, redact_text
from toska_common.sagas.control import Control
from toska_common.sagas.errors import Left, Refused
from toska_common.sagas.steps import Attempt
from toska_common.sagas.storable import require_storable, storable_text

log = structlog.get_logger(__name__)

_LONGEST_DETAIL = 500


class Outcome(BaseModel):
    """How an attempt ended, as it is remembered.

    Attributes:
        value: What an action returned, as JSON.
        begun: Whether anything can have been done.
    """

    kind: OutcomeKind
    value: Any = None
    detail: str = ""
    begun: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """An attempt that is to be made.

    Attributes:
        sequence: Its place among all attempts of the saga.
        call: Makes it.
        result: How what it returns is checked and stored; `None` for a compensation.
    """

    sequence: int
    attempt: Attempt
    occurrence: int
    timeout: timedelta
    call: Callable[[Attempt], Awaitable[Any]] = field(repr=False)
    result: TypeAdapter[Any] | None = None

    @property
    def compensation(self) -> bool:
        """Whether it undoes something."""
        return bool(self.attempt.undoes)

    @property
    def title(self) -> str:
        """How it is called in records: `charge`, `charge#2` if the saga runs it again, `undo charge`."""
        again = f"#{self.occurrence}" if self.occurrence > 1 else ""
        return f"{'undo ' if self.compensation else ''}{self.attempt.step}{again} attempt {self.attempt.number}"


class Notes(Protocol):
    """Where attempts are written down for people; refuses whoever has lost the saga.

    `begin` writes at once, and with it how the attempt before ended, which `end` only keeps: that saves each step a
    transaction. `recall` tells the end of one that was made by a process which may have died before it wrote that;
    `flush` writes what is kept, where nothing else is about to be written.
    """

    async def begin(self, plan: Plan) -> None: ...

    def end(self, plan: Plan, outcome: Outcome, shown: Any, seconds: float) -> None: ...

    def recall(self, plan: Plan, outcome: Outcome, shown: Any) -> None: ...

    async def flush(self) -> None: ...


class Attempter:
    """Makes the attempts of one run of a saga."""

    def __init__(
        self,
        notes: Notes,
        control: Control,
        context: trace.TraceContext,
        *,
        places: anyio.Semaphore,
        leaving: Callable[[], bool],
    ) -> None:
        self._notes = notes
        self._control = control
        self._context = context
        self._places = places
        self._leaving = leaving

    async def make(self, plan: Plan) -> Any:
        """Make one attempt; the outcome, to be remembered.

        Raises:
            Left: The process is stopping, or the saga is not its own any more; nothing was begun, or its end is
                nobody's to record.
        """
        if self._places.value == 0:
            await self._notes.flush()  # it may have to wait for long
        async with self._places:
            return await self._make(plan)

    def recall(self, plan: Plan, outcome: Outcome) -> None:
        """Tell of an attempt that was made before, and is only remembered."""
        self._notes.recall(plan, outcome, _shown(outcome.value))

    async def pause(self, seconds: float, *, undoing: bool = False) -> None:
        """Wait before the next attempt; people can see meanwhile how the last one ended."""
        await self._notes.flush()
        await self._control.pause(seconds, undoing=undoing)

    async def _make(self, plan: Plan) -> Any:
        if self._leaving():
            raise Left("stopping")
        turned = None if plan.compensation else self._turned()
        if turned is not None:
            return Outcome(kind=turned, begun=False, detail="before this step").model_dump(mode="json")
        await self._notes.begin(plan)
        # Each attempt is a task of its own, which begins with an empty context.
        trace.current.set(self._context)
        structlog.contextvars.bind_contextvars(saga=plan.attempt.saga_id, step=plan.attempt.step)
        began_at = anyio.current_time()
        outcome = await self._call(plan)
        seconds = anyio.current_time() - began_at
        self._notes.end(plan, outcome, _shown(outcome.value), seconds)
        if outcome.kind is not OutcomeKind.DONE:
            log.warning(
                "saga_attempt_failed",
                attempt=plan.attempt.number,
                compensation=plan.compensation,
                outcome=outcome.kind.value,
                detail=outcome.detail,
            )
        return outcome.model_dump(mode="json")

    async def _call(self, plan: Plan) -> Outcome:
        limit_s = plan.timeout.total_seconds()
        if plan.compensation:
            scope = anyio.CancelScope(deadline=anyio.current_time() + limit_s)
        else:
            scope = self._control.action(limit_s)
        try:
            with scope:
                returned = await plan.call(plan.attempt)
                return Outcome(kind=OutcomeKind.DONE, value=_stored(plan.result, returned))
        except Refused as error:
            kind = OutcomeKind.FAILED if plan.compensation else OutcomeKind.REFUSED
            return Outcome(kind=kind, detail=_told(error, named=False))
        except Exception as error:  # noqa: BLE001 - whatever an action raises is how it failed
            return Outcome(kind=OutcomeKind.FAILED, detail=_told(error))
        kind = OutcomeKind.TIMED_OUT if plan.compensation else self._turned() or OutcomeKind.TIMED_OUT
        return Outcome(kind=kind, detail=f"no answer within {limit_s:g} s" if kind is OutcomeKind.TIMED_OUT else "")

    def _turned(self) -> OutcomeKind | None:
        if self._control.cancelled:
            return OutcomeKind.CANCELLED
        return OutcomeKind.EXPIRED if self._control.expired else None


def _stored(result: TypeAdapter[Any] | None, returned: Any) -> Any:
    if result is None:
        return None
    return require_storable(result.dump_python(result.validate_python(returned), mode="json"))


def _shown(value: Any) -> Any:
    if isinstance(value, dict | list):
        return redact_fields({"value": value})["value"]
    return redact_text(value) if isinstance(value, str) else value


def _told(error: Exception, *, named: bool = True) -> str:
    text = storable_text(redact_text(str(error)).strip())
    name = type(error).__name__
    told = (f"{name}: {text}" if text else name) if named else text or name
    return told[:_LONGEST_DETAIL]


failure_text = _told
