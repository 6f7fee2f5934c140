"""What can go wrong with sagas.

Refused                what an action raises when it did nothing and never will
StepFailed             what `run(step, …)` raises when a step did not come to be; a saga may catch it
Turned                 the saga must turn back, whatever it would like to do: not for catching
Left                   this process must let go of the saga; another one, or a later one, goes on with it
├── LeaseLost          its slot was taken over
└── HistoryDiffers     what the saga does is not what it did before
UnknownSaga, SagaIdTaken, IllegalSagaState, SagaFailed, SagasClosed    answers to callers
"""

from toska_common.errors import Conflict, NotFound, UpstreamError, UpstreamUnavailable


class Refused(Exception):
    """Raised by an action that has done nothing and would do nothing if it were tried again, as "no such card".

    Its step is neither retried nor compensated. Every other exception leaves open whether there was an effect.
    """


class StepFailed(Exception):
    """A step did not come to be: it was refused, or its last attempt failed."""

    def __init__(self, step: str, outcome: str, detail: str) -> None:
        super().__init__(f"{step} {outcome}: {detail}")
        self.step = step
        self.outcome = outcome
        self.detail = detail


class Turned(BaseException):
    """The saga was cancelled, or its time is over; not an `Exception`, so that no saga takes it for a failed step."""

    def __init__(self, step: str, outcome: str, detail: str) -> None:
        super().__init__(f"{outcome} at {step}: {detail}")
        self.step = step
        self.outcome = outcome
        self.detail = detail


class Left(BaseException):
    """This process stops in the middle of a saga and records nothing more of it."""


class LeaseLost(Left):
    """Somebody else has this process's slot, or this saga."""


class HistoryDiffers(Left):
    """The saga asks for another step than the one that is recorded at this place."""


class JournalBroken(Left):
    """The journal failed, not the saga: whatever is wrong, it is no reason to undo anything."""


class Deadly(Left):
    """Process after process died in the middle of one attempt: the next one does not try."""


class UnknownSaga(NotFound):
    """There is no saga of this id."""

    code, title = "unknown-saga", "No such saga"


class SagaIdTaken(Conflict):
    """The id belongs to a saga that was started otherwise: of another kind, or with another input."""

    code, title = "saga-id-taken", "The saga's id is taken"


class IllegalSagaState(Conflict):
    """The saga is not in a state in which this can be done."""

    code, title = "illegal-saga-state", "Not in this state of the saga"


class SagaFailed(UpstreamError):
    """A saga that somebody waited for was undone, or is stuck; `saga_id` says which."""

    code, title = "saga-failed", "The saga did not complete"


class SagasClosed(UpstreamUnavailable):
    """This process runs no sagas now: it has not started, or it is stopping."""

    code, title = "sagas-closed", "Sagas are not open"
