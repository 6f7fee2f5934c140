"""Rollouts and experiments as they are stored: what was asked for, and the state that a next leader goes on from."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from toska_common.contracts import Contract
from toska_common.contracts.experiments import Experiment, ExperimentStatus
from toska_common.contracts.rollouts import Evidence, Phase, Rollout
from toska_common.contracts.routing import Route, WeightedCluster
from toska_common.routing.versions import content_version

from toska_router.rollouts.counts import Side
from toska_router.rollouts.machine import Progress, Reference

Kind = Literal["rollout", "experiment"]


class StoredSide(Contract):
    """The baseline of a step that is over, as the step after it is compared with."""

    step: int
    requests: int
    failed: int
    gone: int
    reasons: Mapping[str, int]
    buckets: tuple[int, ...]


class RolloutRecord(Contract):
    """A rollout.

    Attributes:
        to: Where the route led when it began; while that is so, the rollout stands for it.
        revision: Of the routes, when it began: a router that knows none so new cannot say what has become of them.
        released: It does not stand for the route any more, whatever that looks like.
    """

    rollout: Rollout
    run: int = 1
    phase: Phase = "pending"
    step: int = 0
    watched_s: float = 0.0
    reference: StoredSide | None = None
    reason: str = "waits for a router that leads"
    to: tuple[WeightedCluster, ...]
    revision: int = 0
    released: bool = False
    created_at: datetime
    changed_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    evidence: Evidence | None = None

    @property
    def token(self) -> str:
        """What gateways count its present step under; of no other rollout, also of none that had its name before."""
        return f"rollout:{self.rollout.name}:{_stamp(self.created_at)}:{self.step}"

    @property
    def is_over(self) -> bool:
        """Whether nothing becomes of it any more."""
        return self.progress.is_over

    @property
    def is_open(self) -> bool:
        """Whether a leader has something to do about it."""
        return not self.is_over or not self.released

    @property
    def progress(self) -> Progress:
        """As `machine` takes it."""
        known = self.reference
        reference = None
        if known is not None:
            side = Side(known.requests, known.failed, known.gone, known.reasons, known.buckets)
            reference = Reference(known.step, side)
        return Progress(self.phase, self.step, self.watched_s, reference, self.reason)

    def after(self, progress: Progress, **changes: Any) -> "RolloutRecord":
        """With what `machine` has made of it."""
        known = progress.reference
        reference = None
        if known is not None:
            side = known.side
            reference = StoredSide(
                step=known.step,
                requests=side.requests,
                failed=side.failed,
                gone=side.gone,
                reasons=side.reasons,
                buckets=side.buckets,
            )
        fields = {
            "phase": progress.phase,
            "step": progress.step,
            "watched_s": progress.watched_s,
            "reference": reference,
            "reason": progress.reason,
        }
        return self.model_copy(update={**fields, **changes})

    @property
    def version(self) -> str:
        """For `If-Match`: another one whenever something but its counts has changed."""
        return content_version([self.rollout.model_dump(mode="json"), self.token, self.phase, self.released])


class ExperimentRecord(Contract):
    """An experiment.

    Attributes:
        fence: Of the leader who began it, and who alone guards it.
        revision: Of the routes, when it was made; as a rollout's.
    """

    experiment: Experiment
    status: ExperimentStatus
    fence: int = 0
    revision: int = 0

    @property
    def token(self) -> str:
        """What gateways count under while it runs; as a rollout's."""
        return f"experiment:{self.experiment.name}:{_stamp(self.status.created_at)}"

    @property
    def is_over(self) -> bool:
        """Whether nothing becomes of it any more."""
        return self.status.phase in ("finished", "stopped")

    @property
    def is_open(self) -> bool:
        """Whether a leader has something to do about it."""
        return not self.is_over

    @property
    def version(self) -> str:
        """For `If-Match`."""
        return content_version([self.experiment.model_dump(mode="json"), self.token, self.status.phase])


class LeaderRecord(Contract):
    """Who leads; nobody with a lower fence may write any more."""

    fence: int = 0
    router: str = ""


def _stamp(moment: datetime) -> int:
    # Not the number of the run: that begins anew once a name is deleted, and gateways tell of a token for a while yet.
    return round(moment.timestamp() * 1000)


def is_split_of(route: Route, clusters: frozenset[str]) -> bool:
    """Whether a route's shares go to these clusters and to no other, whatever it does under conditions."""
    return {part.cluster for part in route.to if part.when is None and part.weight} <= clusters
