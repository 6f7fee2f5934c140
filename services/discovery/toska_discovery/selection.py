"""Which instances a question is about, and in which order they come. Pure.

Filters of different kinds must all hold. A text is looked for, whatever its case, in names, ids, tags, addresses and
metadata; of several words all must be there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from toska_common.contracts.discovery import Health, ServiceSummary
from toska_common.contracts.profile import meta_key

from toska_discovery.member import META_REGISTERED_AT, META_TTL, Member, mean_score

Order = Literal["best", "id"]

_VERSION, _REGION, _ZONE, _TYPE = map(meta_key, ("version", "region", "zone", "type"))
_CAPABILITIES, _PRIORITY = meta_key("capabilities"), meta_key("priority")
_SEVERITY = {Health.PASSING: 0, Health.WARNING: 1, Health.CRITICAL: 2}
_STRUGGLING = 0.5
"""Score below which a near instance counts as one step farther away."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is asked for; empty fields ask for nothing."""

    health: frozenset[Health] = frozenset()
    version: str = ""
    region: str = ""
    zone: str = ""
    type: str = ""
    tags: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()

    def match(self, member: Member) -> bool:
        """Whether a member is among those that are asked for."""
        meta = member.meta
        if self.health and member.health not in self.health:
            return False
        wanted = ((_VERSION, self.version), (_REGION, self.region), (_ZONE, self.zone), (_TYPE, self.type))
        if any(value and meta.get(key) != value for key, value in wanted):
            return False
        if not self.tags <= set(member.tags) or not self.capabilities <= set(member.words(_CAPABILITIES)):
            return False
        return not self.words or self._mentions(member)

    def _mentions(self, member: Member) -> bool:
        shown = (text for item in member.meta.items() if item[0] not in (META_TTL, META_REGISTERED_AT) for text in item)
        text = "\n".join((member.service, member.id, member.address, *member.tags, *shown)).lower()
        return all(word in text for word in self.words)


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a question comes from, for what is near."""

    region: str = ""
    zone: str = ""

    def distance(self, member: Member) -> int:
        """0 in the caller's zone, 1 in its region, 2 elsewhere; 0 for callers that do not say."""
        if not self.region and not self.zone:
            return 0
        same_region = bool(self.region) and member.meta.get(_REGION) == self.region
        same_zone = bool(self.zone) and member.meta.get(_ZONE) == self.zone
        if same_zone and (same_region or not self.region):
            return 0
        return 1 if same_region else 2


def in_order(members: Iterable[Member], order: Order, caller: Caller) -> list[Member]:
    """Members as a caller should try them: `best` first, or by id.

    The best is passing, near, of the lowest priority number, and has the least to do for its weight and health. One
    that is not well counts as farther away, so that traffic spills over to the next zone before it fails here.
    """
    if order == "id":
        return sorted(members, key=lambda member: member.id)

    def rank(member: Member) -> tuple[Any, ...]:
        report, score = member.report, member.score
        in_flight = 0 if report is None else report.in_flight
        busy = (in_flight + 1) / (member.weight * max(score, 0.01))
        distance = caller.distance(member) + (score < _STRUGGLING)
        return _SEVERITY[member.health], distance, _priority(member.meta), busy, member.id

    return sorted(members, key=rank)


def _priority(meta: Mapping[str, str]) -> int:
    text = meta.get(_PRIORITY, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0


def summarise(name: str, members: list[Member]) -> ServiceSummary:
    """A service by those of its instances that were asked for."""

    def distinct(key: str) -> tuple[str, ...]:
        return tuple(sorted({member.meta[key] for member in members if member.meta.get(key)}))

    count = {health: sum(member.health is health for member in members) for health in Health}
    return ServiceSummary(
        name=name,
        tags=tuple(sorted({tag for member in members for tag in member.tags})),
        passing=count[Health.PASSING],
        warning=count[Health.WARNING],
        critical=count[Health.CRITICAL],
        versions=distinct(_VERSION),
        regions=distinct(_REGION),
        zones=distinct(_ZONE),
        score=mean_score(members),
    )


SERVICE_KEYS: dict[str, Callable[[ServiceSummary], Any]] = {
    "name": lambda service: "",
    "instances": lambda service: service.passing + service.warning + service.critical,
    "passing": lambda service: service.passing,
    "critical": lambda service: service.critical,
    "score": lambda service: service.score,
}
"""What services are sorted by; the name decides between equals."""
INSTANCE_KEYS: dict[str, Callable[[Member], Any]] = {
    "id": lambda member: "",
    "service": lambda member: member.service,
    "health": lambda member: _SEVERITY[member.health],
    "version": lambda member: member.meta.get(_VERSION, ""),
    "score": lambda member: member.score,
    "weight": lambda member: member.weight,
    "registered": lambda member: "" if member.registered_at is None else member.registered_at.isoformat(),
}
"""What instances are sorted by; the id decides between equals."""
