"""One instance as the mesh's own API sees it, whichever registry it is in, and what it is told as."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from toska_common.contracts.discovery import Health, Instance, Report
from toska_common.contracts.profile import decode_profile
from toska_common.contracts.reports import decode_report, score_of, score_steps

META_TTL = "toska-ttl-seconds"
META_REGISTERED_AT = "toska-registered-at"
"""Metadata that stands for what Consul has no field for; not shown."""
_HIDDEN = frozenset({META_TTL, META_REGISTERED_AT})


@dataclass(frozen=True, slots=True)
class Member:
    """A listed instance; cheap to make, since a list may have 100,000 of them and a page 100.

    Attributes:
        meta: As the registry has it, the mesh's own keys included.
        output: Of its lease's last report.
        node: Name of the machine it is registered with.
    """

    id: str
    service: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict[str, str])
    weight: int = 1
    health: Health = Health.PASSING
    output: str = ""
    ttl_s: float | None = None
    registered_at: datetime | None = None
    node: str = ""

    @property
    def report(self) -> Report | None:
        """What it last said of itself."""
        return decode_report(self.output)

    @property
    def score(self) -> float:
        """Its health score, 0 to 1."""
        return score_of(self.health, self.report)

    @property
    def traffic(self) -> int:
        """Its part of the service's traffic, in steps of its weight; none while it is not passing."""
        return self.weight * score_steps(self.meta) if self.health is Health.PASSING else 0

    def words(self, key: str) -> tuple[str, ...]:
        """A metadata value that is a list."""
        return tuple(filter(None, self.meta.get(key, "").split(",")))


def visible(meta: Mapping[str, str]) -> dict[str, str]:
    """Metadata without what only stands for fields."""
    return {key: value for key, value in meta.items() if key not in _HIDDEN}


def render(member: Member) -> Instance:
    """The contract of a member."""
    report = member.report
    return Instance(
        id=member.id,
        service=member.service,
        address=member.address,
        port=member.port,
        tags=member.tags,
        metadata=visible(member.meta),
        weight=member.weight,
        health=member.health,
        ttl_seconds=member.ttl_s,
        registered_at=member.registered_at,
        score=score_of(member.health, report),
        report=report,
        **decode_profile(member.meta),
    )


def mean_score(members: Iterable[Member]) -> float:
    """The mean of their scores; 1 for none."""
    scores = [member.score for member in members]
    return round(sum(scores) / len(scores), 3) if scores else 1.0
