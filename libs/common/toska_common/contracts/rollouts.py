"""Rollouts: what an operator asks for, how far one is, and what it has seen on the way."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from toska_common.contracts import Contract, Document
from toska_common.contracts.names import ResourceName
from toska_common.units import Duration

Phase = Literal["pending", "running", "paused", "succeeded", "rolled_back", "superseded"]
Verdict = Literal["good", "thin", "suspicious", "bad"]
ThinTraffic = Literal["rollback", "pause", "promote"]

_LONGEST = timedelta(days=7)


class RolloutStep(Document):
    """A share of the traffic for the canary, and what has to be seen of it before the next; what is left out is the
    rollout's."""

    percent: float = Field(gt=0, le=100, description="Of the requests; to a hundredth")
    hold: Duration | None = Field(default=None, description="How long it lasts at least")
    min_requests: int | None = Field(default=None, ge=1, le=1_000_000_000)
    deadline: Duration | None = Field(default=None, description="How long it lasts at most")


def _step(value: object) -> object:
    return {"percent": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


_Step = Annotated[RolloutStep, BeforeValidator(_step, json_schema_input_type=RolloutStep | float)]


class ErrorCheck(Document):
    """How many more requests may fail than of the baseline. A request fails with 5xx, if it is cut off, or if only a
    retry or a fallback saved it."""

    max_increase: float = Field(default=0.01, ge=0, le=1, description="Canary's share less the baseline's")
    max: float | None = Field(default=None, gt=0, le=1, description="The canary's share, whatever the baseline's is")


class LatencyCheck(Document):
    """How much slower the canary may be at one percentile."""

    quantile: float = Field(ge=0.5, lt=1, description="0.95 for p95")
    max_ratio: float = Field(default=1.25, ge=1, le=100, description="Canary's latency over the baseline's")
    slack: Duration = Field(
        default=timedelta(milliseconds=5),
        description="So much more is allowed in any case: half as fast may be nothing",
    )
    max: Duration | None = Field(default=None, description="The canary's latency, whatever the baseline's is")

    @field_validator("slack")
    @classmethod
    def _not_negative(cls, value: timedelta) -> timedelta:
        if value < timedelta():
            raise ValueError("is 0s or longer")
        return value

    @field_validator("max")
    @classmethod
    def _positive(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value <= timedelta():
            raise ValueError("is longer than 0s")
        return value


class RolloutChecks(Document):
    """What the canary is held to, at every step."""

    errors: ErrorCheck = ErrorCheck()
    latency: tuple[LatencyCheck, ...] = Field(
        default=(LatencyCheck(quantile=0.95), LatencyCheck(quantile=0.99, max_ratio=1.5)), max_length=4
    )
    confidence: float = Field(
        default=0.95,
        ge=0.5,
        le=0.9999,
        description="So sure is a rollback: of rollouts whose canary is within its limits, at most one in 20 is rolled "
        "back for what it seemed to do, with 0.95",
    )

    @field_validator("latency")
    @classmethod
    def _each_once(cls, value: tuple[LatencyCheck, ...]) -> tuple[LatencyCheck, ...]:
        if len({check.quantile for check in value}) != len(value):
            raise ValueError("a quantile stands twice")
        return value

    @property
    def is_absolute(self) -> bool:
        """Whether there is a limit that needs no baseline."""
        return self.errors.max is not None or any(check.max is not None for check in self.latency)


class Rollout(Document):
    """Moves a route's traffic from a baseline to a canary, step by step, for as long as the canary does no worse."""

    name: ResourceName
    route: ResourceName = Field(description="It leads to the baseline, or is a split of the baseline and the canary")
    baseline: ResourceName = Field(description="The cluster that has the traffic now")
    canary: ResourceName = Field(description="The cluster that is to have it")
    steps: tuple[_Step, ...] = Field(
        default=(RolloutStep(percent=10), RolloutStep(percent=50), RolloutStep(percent=100)),
        min_length=1,
        max_length=20,
        description="Rising to 100; a bare number is a step's percent",
    )
    hold: Duration = Field(default=timedelta(minutes=5), description="How long each step lasts at least")
    min_requests: int = Field(
        default=100,
        ge=1,
        le=1_000_000_000,
        description="How many requests each side has to have had in a step before the next; at 100%, the canary",
    )
    deadline: Duration = Field(default=timedelta(hours=1), description="How long each step lasts at most")
    on_thin_traffic: ThinTraffic = Field(
        default="rollback", description="What is done at a step's deadline with fewer requests than that"
    )
    checks: RolloutChecks = RolloutChecks()
    at_end: Literal["adopt", "keep"] = Field(
        default="adopt",
        description="adopt: the route itself is changed to lead to the canary, if it is the API's; keep: the route "
        "stays as it is written, and the rollout goes on standing for it",
    )

    @model_validator(mode="after")
    def _two_clusters(self) -> Self:
        if self.baseline == self.canary:
            raise ValueError("baseline and canary are two clusters")
        return self

    @model_validator(mode="after")
    def _rising_steps(self) -> Self:
        percents = [step.percent for step in self.steps]
        if any(later <= earlier for earlier, later in pairwise(percents)):
            raise ValueError("steps: each step's percent is higher than the one before")
        if percents[-1] != 100:
            raise ValueError("steps: the last step's percent is 100")
        if any(round(percent * 100) != percent * 100 for percent in percents):
            raise ValueError("steps: a percent has at most two decimals")
        if len(percents) == 1 and not self.checks.is_absolute:
            raise ValueError(
                "steps: with 100 as the only step there is never a baseline to compare with; "
                "give checks.errors.max or a max of checks.latency"
            )
        return self

    @model_validator(mode="after")
    def _times(self) -> Self:
        for index, step in enumerate(self.steps):
            hold, deadline = step.hold or self.hold, step.deadline or self.deadline
            if not timedelta() < hold <= deadline <= _LONGEST:
                raise ValueError(f"steps[{index}]: hold is longer than 0s, and at most deadline, which is at most 7d")
        return self


class SideNumbers(Contract):
    """One side of a comparison."""

    requests: int = 0
    failed: int = 0
    gone: int = Field(default=0, description="Broken off by clients, and not counted otherwise")
    error_ratio: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    reasons: Mapping[str, int] = Field(default_factory=dict[str, int], description="Why requests failed")


class Comparison(Contract):
    """One check, as it stands: `good`, `suspicious` (beyond its limit, and it could be chance), or `bad` (proven)."""

    check: str
    verdict: Verdict
    canary: float | None = Field(default=None, description="As seen: a share, or milliseconds")
    baseline: float | None = None
    limit: float | None = Field(default=None, description="Which the canary may not exceed; of the same unit")
    says: str = Field(default="", description="For people")


class Evidence(Contract):
    """What a step has seen so far, and what is thought of it."""

    step: int
    percent: float
    watched_seconds: float
    canary: SideNumbers = SideNumbers()
    baseline: SideNumbers = SideNumbers()
    baseline_of_step: int | None = Field(default=None, description="The step that the baseline's numbers are from")
    comparisons: tuple[Comparison, ...] = ()
    verdict: Verdict = "thin"
    summary: str = ""


class RolloutEvent(Contract):
    """One line of a rollout's history."""

    sequence: int
    at: datetime
    kind: Literal[
        "created", "started", "promoted", "paused", "resumed", "rolled_back", "succeeded", "superseded", "taken_over"
    ]
    run: int = 1
    step: int = Field(description="The step that it happened in, from 0")
    by: str = Field(description="rollout, or who asked for it")
    reason: str = ""
    evidence: Evidence | None = None


class RolloutStatus(Contract):
    """How far a rollout is."""

    phase: Phase = Field(description="pending: until a router that leads has taken it up")
    run: int = Field(default=1, description="Counts how often it was started")
    step: int = Field(default=0, description="From 0")
    percent: float = Field(description="The canary's share now")
    watched_seconds: float = Field(default=0.0, description="Of this step, while somebody watched")
    created_at: datetime
    started_at: datetime | None = None
    changed_at: datetime
    ended_at: datetime | None = None
    reason: str = Field(default="", description="Why it is in this phase")
    in_force: bool = Field(default=False, description="Whether it stands for the route's own weights")
    evidence: Evidence | None = Field(default=None, description="The step's, as it is now")


class RolloutEntry(Contract):
    """A rollout as the API shows it."""

    rollout: Rollout
    status: RolloutStatus
    version: str
    leader: str = Field(default="", description="The router that leads rollouts; empty if none is known")
