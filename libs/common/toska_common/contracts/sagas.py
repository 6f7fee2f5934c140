"""Sagas as their management API (`/api/v1/sagas`) shows them."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from toska_common.contracts import Contract, Document


class SagaState(StrEnum):
    """Where a saga is.

    running ──▶ completed
       │
       └──▶ compensating ──▶ compensated (it failed) or cancelled (somebody wanted it so)
    Either of the first two can be `stuck` until somebody resumes it.
    """

    RUNNING = "running"
    COMPENSATING = "compensating"
    STUCK = "stuck"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will be done."""
        return self in FINAL


FINAL = frozenset({SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.CANCELLED})


class OutcomeKind(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class SagaFailure(Contract):
    """Why a saga turned back."""

    step: str = Field(description="Where; empty if it was the saga's own function")
    outcome: str
    detail: str


class SagaSummary(Contract):
    """One saga in a listing."""

    id: str
    name: str
    version: int
    state: SagaState
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    deadline_at: datetime | None = Field(default=None, description="When it turns back if it has not completed")
    executor: str = Field(description="Who runs it, or was the last to: service/slot.holder")
    cancel_requested: bool = False
    resumes: int = Field(default=0, description="How often somebody resumed it when it was stuck")
    failure: SagaFailure | None = None
    stuck: str = Field(default="", description="Why it is stuck")


class SagaAttempt(Contract):
    """One attempt of a step's action, or of its compensation."""

    step: str
    occurrence: int = Field(description="1 for the step's first use in this saga")
    compensation: bool
    number: int
    begun: int = Field(description="More than 1 if processes died in the middle of it")
    executor: str
    idempotency_key: str
    started_at: datetime
    finished_at: datetime | None = Field(default=None, description="Absent while it runs, or died with its process")
    outcome: OutcomeKind | None = None
    detail: str = Field(default="", description="The error, without what is known to be secret")
    result: Any = Field(default=None, description="What the action returned, secrets masked by their names")


class SagaDetail(SagaSummary):
    """One saga with all that happened."""

    input: Any = None
    result: Any = None
    trace_id: str = ""
    attempts: list[SagaAttempt] = Field(default=[], description="Oldest first")


class SagaList(Contract):
    """A page of sagas, newest first."""

    sagas: list[SagaSummary]
    next: str | None = Field(default=None, description="`before` of the following page; absent on the last")


class SagaService(Contract):
    """A service whose sagas can be looked at."""

    service: str
    instances: int = Field(description="That say so, whether or not they are well")


class CancelSaga(Document):
    """A wish that a saga should turn back."""

    reason: str = Field(default="", max_length=500, description="For the history")
