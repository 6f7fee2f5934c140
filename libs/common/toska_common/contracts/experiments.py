"""Chaos experiments: faults on live traffic for a limited time, and what they did."""

from datetime import datetime, timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from toska_common.contracts import Contract, Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.experiments import Fault
from toska_common.contracts.tallies import WholeCounts
from toska_common.units import Duration

ExperimentPhase = Literal["pending", "running", "finished", "stopped"]

_LONGEST = timedelta(hours=24)


class StopRule(Document):
    """When an experiment has done enough harm: more of all requests fail than this, whatever their route."""

    error_ratio: float = Field(default=0.1, gt=0, le=1, description="Of all that gateways serve, aborted ones included")
    min_requests: int = Field(default=50, ge=1, description="With fewer in the window nothing is decided")
    window: Duration = Field(default=timedelta(seconds=30), description="So long back is looked")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not timedelta(seconds=1) <= self.window <= timedelta(minutes=10):
            raise ValueError("window lies between 1s and 10m")
        return self


class Experiment(Document):
    """Puts a fault on routes, or on what goes to clusters, for a while."""

    name: ResourceName
    routes: tuple[ResourceName, ...] = Field(default=(), max_length=100)
    clusters: tuple[ResourceName, ...] = Field(
        default=(), max_length=16, description="On all routes to them, and only for requests that go there"
    )
    fault: Fault
    duration: Duration = Field(description="From 1s to 24h; gateways end it then by themselves, whoever is away")
    stop: StopRule = StopRule()

    @model_validator(mode="after")
    def _something_to_hit(self) -> Self:
        if bool(self.routes) == bool(self.clusters):
            raise ValueError("give either routes or clusters")
        if not timedelta(seconds=1) <= self.duration <= _LONGEST:
            raise ValueError("duration lies between 1s and 24h")
        if self.fault.until is not None or self.fault.clusters:
            raise ValueError("fault: until and clusters follow from duration and clusters of the experiment")
        return self


class ExperimentStatus(Contract):
    """How an experiment is, or what became of it."""

    phase: ExperimentPhase = "pending"
    run: int = 1
    created_at: datetime
    started_at: datetime | None = None
    ends_at: datetime | None = Field(default=None, description="The latest")
    ended_at: datetime | None = None
    reason: str = Field(default="", description="Why it is in this phase")
    whole: WholeCounts = Field(default=WholeCounts(), description="Everything served meanwhile, of whichever route")
    recent_error_ratio: float | None = Field(default=None, description="Of the window")
    worst_error_ratio: float | None = Field(default=None, description="Of any window")


class ExperimentEvent(Contract):
    """One line of an experiment's history."""

    sequence: int
    at: datetime
    kind: Literal["created", "started", "finished", "stopped"]
    run: int = 1
    by: str
    reason: str = ""
    status: ExperimentStatus | None = Field(default=None, description="With what was counted, when it ended")


class ExperimentEntry(Contract):
    """An experiment as the API shows it."""

    experiment: Experiment
    status: ExperimentStatus
    version: str
    leader: str = ""
