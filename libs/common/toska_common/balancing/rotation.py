"""Which endpoints take traffic now, and with which weights: health, panic, zones and slow start.

    all endpoints ──healthy──▶ those in the own zone ──slow start──▶ rotation
         ▲                             │ too few of them healthy
         └── too few healthy: panic    ▼
                                   the others take the rest

Health first: unhealthy endpoints are left out. If fewer than `panic_ratio` of all are healthy, health is a guess that
would put everybody's load on the last few, so all are taken. Then the zone: an endpoint nearby is quicker and
cheaper, so the own zone takes what it can carry. Last, an endpoint that has just come gets its share bit by bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from toska_common.balancing.base import Weighted

STEPS = 20
"""In so many steps a newcomer comes to its whole weight."""


class Member(Weighted, Protocol):
    """An endpoint as the rotation sees it.

    Attributes:
        healthy: Neither ejected nor failing its health check.
        zone: Where it runs; empty if nobody said.
        joined_at: Monotonic seconds since when it is healthy here.
    """

    @property
    def healthy(self) -> bool: ...
    @property
    def zone(self) -> str: ...
    @property
    def joined_at(self) -> float: ...


M = TypeVar("M", bound=Member)


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """How the rotation is made.

    Attributes:
        panic_ratio: With a smaller share of healthy endpoints, health is ignored; in [0, 1]. At 0 only when none is.
        zone: The own zone; empty knows none.
        zone_capacity: Share of healthy endpoints in the own zone with which it carries its whole load, in (0, 1].
        zone_least: How many of them it needs for that besides; where only healthy ones are told, this is what shows
            that too few are left.
        slow_start_s: How long a newcomer takes to its whole weight.
    """

    panic_ratio: float = 0.0
    zone: str = ""
    zone_capacity: float = 0.7
    zone_least: int = 1
    slow_start_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rotation(Generic[M]):
    """Endpoints and their weights, in the same order.

    Attributes:
        changes_at: Monotonic seconds at which the weights are others although nothing happened; `None` if never.
        panic: Whether health was ignored.
    """

    endpoints: list[M]
    weights: list[float]
    changes_at: float | None = None
    panic: bool = False


def rotate(members: Sequence[M], policy: RotationPolicy, now: float) -> Rotation[M]:
    """Make the rotation as of `now` (monotonic seconds)."""
    healthy = [member for member in members if member.healthy]
    panic = bool(members) and (not healthy or len(healthy) < len(members) * policy.panic_ratio)
    taken = list(members) if panic else healthy
    weights = [float(member.weight) for member in taken]
    changes_at = _start_slowly(taken, weights, policy.slow_start_s, now) if policy.slow_start_s else None
    if policy.zone:
        taken, weights = _prefer_zone(taken, weights, _zone_share(members, policy, panic=panic), policy.zone)
    return Rotation(taken, weights, changes_at, panic)


def _start_slowly(taken: Sequence[Member], weights: list[float], window_s: float, now: float) -> float | None:
    """Scale newcomers' weights in place; tells when the next step is due."""
    step_s = window_s / STEPS
    due: float | None = None
    for index, member in enumerate(taken):
        age = now - member.joined_at
        if age < window_s:
            step = int(age / step_s + 1e-9)  # a time that was rounded is not a step behind
            weights[index] *= min(STEPS, max(1, step)) / STEPS
            at = member.joined_at + min(STEPS, step + 1) * step_s
            due = at if due is None else min(due, at)
    return due


def _zone_share(members: Sequence[Member], policy: RotationPolicy, *, panic: bool) -> float:
    """Part of the traffic that stays in the own zone: all of it while enough of its endpoints are healthy."""
    own = [member for member in members if member.zone == policy.zone]
    if not own or panic:
        return 0.0
    well = sum(member.healthy for member in own)
    return min(1.0, well / len(own) / policy.zone_capacity, well / policy.zone_least)


def _prefer_zone(taken: list[M], weights: list[float], share: float, zone: str) -> tuple[list[M], list[float]]:
    near = sum(weight for member, weight in zip(taken, weights, strict=True) if member.zone == zone)
    far = sum(weights) - near
    if not near or not share:
        return taken, weights
    if not far or share >= 1.0:
        kept = [(member, weight) for member, weight in zip(taken, weights, strict=True) if member.zone == zone]
        return [member for member, _ in kept], [weight for _, weight in kept]
    # The whole keeps its sum, so that the parts have their shares.
    total = near + far
    scaled = [
        weight * (share * total / near if member.zone == zone else (1 - share) * total / far)
        for member, weight in zip(taken, weights, strict=True)
    ]
    return taken, scaled
