"""`Run`: what a saga's function does its steps with, forwards; and what undoes them, backwards.

    run(step, input):  attempt 1 ──done──▶ result
                          │ failed, timed out
                          ├──pause──▶ attempt 2 … ──the last──▶ StepFailed, and the step is undone too
                          ├──refused──▶ StepFailed, and there is nothing to undo
                          └──cancelled, or the saga's time is over──▶ Turned

What happens is decided by what was remembered alone, so that after a crash it is decided again in the same way. Pauses
are not remembered: a saga that is taken over waits once more.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from pydantic import ValidationError

from toska_common.contracts.sagas import OutcomeKind
from toska_common.sagas.attempts import Attempter, Outcome, Plan
from toska_common.sagas.control import Control
from toska_common.sagas.errors import HistoryDiffers, JournalBroken, StepFailed, Turned
from toska_common.sagas.journal import Journal
from toska_common.sagas.steps import Attempt, In, Out, Step, idempotency_key

_TURNED = frozenset({OutcomeKind.CANCELLED, OutcomeKind.EXPIRED})


@dataclass(frozen=True, slots=True)
class Done:
    """A step that may have had an effect; `result` is `None` where that is not known."""

    step: Step[Any, Any]
    occurrence: int
    input: Any
    result: Any
    key: str


class Undone(Exception):
    """A compensation failed as often as it may."""

    def __init__(self, step: str, attempts: int, detail: str) -> None:
        super().__init__(f"the compensation of {step} failed {attempts} times; the last: {detail}")


class Run:
    """One run of a saga from its beginning, given to its function."""

    def __init__(
        self,
        saga_id: str,
        *,
        service: str,
        journal: Journal,
        attempter: Attempter,
        control: Control,
        resumes: int = 0,
    ) -> None:
        self.saga_id = saga_id
        self.turned: Turned | None = None
        self._service = service
        self._journal = journal
        self._attempter = attempter
        self._control = control
        self._resumes = resumes
        self._sequence = count(1)
        self._occurrences: Counter[str] = Counter()
        self._done: list[Done] = []
        self._busy = False

    async def __call__(self, step: Step[In, Out], value: In) -> Out:
        """Have a step done; its result, now or as it was before a crash.

        Raises:
            StepFailed: It was refused, or failed as often as it may. A saga that catches this goes on; what the step
                may have done is undone only if the saga turns back later.
        """
        if self._busy:
            raise RuntimeError(f"{step!r}: a saga runs one step at a time")
        if self.turned is not None:
            raise self.turned
        self._busy = True
        try:
            return await self._step(step, value)
        finally:
            self._busy = False

    async def _step(self, step: Step[In, Out], value: In) -> Out:
        value = step.input.validate_python(value)
        self._occurrences[step.name] += 1
        occurrence = self._occurrences[step.name]
        key = idempotency_key(self._service, self.saga_id, step.name, occurrence)

        def done(result: Out | None) -> None:
            self._done.append(Done(step, occurrence, value, result, key))

        for number in count(1):
            attempt = Attempt(self.saga_id, step.name, number, key)
            call = partial(step.action, value)
            outcome = await self._remember(attempt, occurrence, step.timeout, call, step.result)
            if outcome.kind is OutcomeKind.DONE:
                result = _read(step, outcome)
                done(result)
                return result
            # What an earlier attempt may have done is not known, whatever this one says.
            begun = number > 1 or (outcome.begun and outcome.kind is not OutcomeKind.REFUSED)
            if outcome.kind is OutcomeKind.REFUSED:
                if begun:
                    done(None)
                raise StepFailed(step.name, outcome.kind, outcome.detail)
            if outcome.kind in _TURNED:
                if begun:
                    done(None)
                self.turned = Turned(step.name, outcome.kind, outcome.detail)
                raise self.turned
            if number >= step.retry.attempts:
                done(None)
                raise StepFailed(step.name, outcome.kind, outcome.detail)
            await self._attempter.pause(step.retry.pause_s(number))
        raise AssertionError("unreachable")

    async def undo(self) -> None:
        """Undo all that was done or may have been, the last first.

        Raises:
            Undone: A compensation failed as often as it may; the saga can be resumed, and gets as many attempts again.
        """
        for done in reversed(self._done):
            compensation = done.step.undo
            if compensation is None:
                continue
            key = idempotency_key(self._service, self.saga_id, done.step.name, done.occurrence, undo=True)
            call = partial(compensation.function, done.input, done.result)
            allowed = compensation.retry.attempts * (1 + self._resumes)
            for number in count(1):
                attempt = Attempt(self.saga_id, done.step.name, number, key, undoes=done.key)
                outcome = await self._remember(attempt, done.occurrence, compensation.timeout, call, None)
                if outcome.kind is OutcomeKind.DONE:
                    break
                if number >= allowed:
                    raise Undone(done.step.name, number, outcome.detail)
                await self._attempter.pause(compensation.retry.pause_s(number), undoing=True)

    async def _remember(
        self, attempt: Attempt, occurrence: int, timeout: Any, call: Callable[[Attempt], Any], result: Any
    ) -> Outcome:
        plan = Plan(next(self._sequence), attempt, occurrence, timeout, call, result)
        made = False

        async def make() -> Any:
            nonlocal made
            made = True
            return await self._attempter.make(plan)

        remembered = await self._journal.remember(plan.title, make)
        try:
            outcome = Outcome.model_validate(remembered)
        except ValidationError as error:
            raise JournalBroken(f"what is recorded as {plan.title} is no outcome") from error
        if not made and outcome.begun:
            self._attempter.recall(plan, outcome)
        return outcome


def _read(step: Step[Any, Out], outcome: Outcome) -> Out:
    try:
        return step.result.validate_python(outcome.value)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) or "it" for problem in error.errors())
        raise HistoryDiffers(f"what {step.name} returned is not what it returns now: {fields}") from error
