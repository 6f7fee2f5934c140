"""Versions of one service side by side: who gets which share, and what kind of deployment that is. Pure.

An instance may say its part (`track`, or a tag of that name). Where none does, two or more versions with traffic are a
canary deployment if the newer ones together get a quarter at most.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, cast

from toska_common.contracts.discovery import Health, ServiceVersions, VersionSummary
from toska_common.contracts.profile import meta_key

from toska_discovery.member import Member, mean_score

Role = Literal["stable", "canary", "blue", "green", ""]
Deployment = Literal["none", "single", "canary", "blue-green", "mixed"]

CANARY_SHARE = 0.25
_ROLES = ("canary", "blue", "green", "stable")
_VERSION, _TRACK = meta_key("version"), meta_key("track")


def compare_versions(name: str, members: Iterable[Member]) -> ServiceVersions:
    """The versions of the service `name`, the one with most traffic first."""
    groups: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        groups[member.meta.get(_VERSION, "")].append(member)
    total = sum(member.traffic for group in groups.values() for member in group)
    versions = [_summarise(version, group, total) for version, group in groups.items()]
    versions.sort(key=lambda version: (-version.share, _age(version), version.version))
    if not any(version.role for version in versions):
        versions = _detect(versions)
    return ServiceVersions(name=name, deployment=_deployment(versions), versions=tuple(versions))


def _summarise(version: str, members: list[Member], total: int) -> VersionSummary:
    known = [member.registered_at for member in members if member.registered_at is not None]
    count = {health: sum(member.health is health for member in members) for health in Health}
    traffic = sum(member.traffic for member in members)
    return VersionSummary(
        version=version,
        role=_declared_role(members),
        instances=len(members),
        passing=count[Health.PASSING],
        warning=count[Health.WARNING],
        critical=count[Health.CRITICAL],
        weight=sum(member.weight for member in members if member.health is Health.PASSING),
        share=round(traffic / total, 4) if total else 0.0,
        score=mean_score(members),
        first_registered_at=min(known, default=None),
    )


def _declared_role(members: Iterable[Member]) -> Role:
    said = {word for member in members for word in (member.meta.get(_TRACK, ""), *member.tags)}
    return cast("Role", next((role for role in _ROLES if role in said), ""))


def _detect(versions: list[VersionSummary]) -> list[VersionSummary]:
    serving = [version for version in versions if version.share]
    if len(serving) < 2:
        return versions
    main, *others = serving
    newer = all(_age(other) >= _age(main) for other in others)
    if not newer or sum(other.share for other in others) > CANARY_SHARE:
        return versions
    roles: dict[str, Role] = {main.version: "stable", **{other.version: "canary" for other in others}}
    return [version.model_copy(update={"role": roles.get(version.version, "")}) for version in versions]


def _deployment(versions: list[VersionSummary]) -> Deployment:
    roles = {version.role for version in versions}
    if not versions:
        return "none"
    if roles & {"blue", "green"}:
        return "blue-green"
    if len(versions) == 1:
        return "single"
    return "canary" if "canary" in roles else "mixed"


def _age(version: VersionSummary) -> float:
    at: datetime | None = version.first_registered_at
    return 0.0 if at is None else at.timestamp()
