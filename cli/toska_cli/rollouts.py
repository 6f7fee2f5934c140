"""`toska rollouts` and `toska rollout`: how far rollouts are, what they see, and steering one by hand."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter
from toska_common.contracts.rollouts import Evidence, RolloutEntry, RolloutEvent, SideNumbers

from toska_cli.admin_api import AdminApi
from toska_cli.running import get_running_mesh

_ENTRIES: TypeAdapter[list[RolloutEntry]] = TypeAdapter(list[RolloutEntry])
_EVENTS: TypeAdapter[list[RolloutEvent]] = TypeAdapter(list[RolloutEvent])


def show_rollouts(home: Path | None, *, as_json: bool) -> None:
    """Print every rollout in one line.

    Raises:
        ConfigurationError: No mesh runs there.
        MeshError: Its router refuses, or does not answer.
    """
    found = _router(home).get("/api/v1/rollouts")
    entries = _ENTRIES.validate_python(found)
    lines = [summarize(entry) for entry in entries] or ["no rollouts"]
    sys.stdout.write(json.dumps(found) + "\n" if as_json else "\n".join(lines) + "\n")


def show_rollout(home: Path | None, name: str, action: str | None, *, as_json: bool) -> bool:
    """Steer a rollout, if `action` says how, and print it with its history; whether it was not rolled back.

    Raises:
        ConfigurationError: No mesh runs there.
        MeshError: Its router refuses, or does not answer.
    """
    router = _router(home)
    path = f"/api/v1/rollouts/{name}"
    found = router.get(path) if action is None else router.post(f"{path}/{action}")
    entry = RolloutEntry.model_validate(found)
    told = router.get(f"{path}/history")
    if as_json:
        sys.stdout.write(json.dumps({**found, "history": told}) + "\n")
    else:
        sys.stdout.write("\n".join(describe(entry, _EVENTS.validate_python(told))) + "\n")
    return entry.status.phase != "rolled_back"


def summarize(entry: RolloutEntry) -> str:
    """A rollout in one line."""
    rollout, status = entry.rollout, entry.status
    phase = status.phase.replace("_", " ")
    steps = " ".join(_mark(index, step.percent, entry) for index, step in enumerate(rollout.steps))
    says = status.reason if status.evidence is None or status.ended_at is not None else status.evidence.summary
    return f"{rollout.name:<20} {phase:<12} {steps:<20}  {rollout.baseline} -> {rollout.canary}  {says}"


def describe(entry: RolloutEntry, events: list[RolloutEvent]) -> Iterator[str]:
    """A rollout with what its present step sees, and what has become of it."""
    yield summarize(entry)
    if entry.status.evidence is not None:
        yield from _evidence(entry, entry.status.evidence)
    yield "history"
    for event in events:
        percent = f"{entry.rollout.steps[min(event.step, len(entry.rollout.steps) - 1)].percent:g}%"
        yield f"  {event.at:%H:%M:%S}  {percent:>5}  {event.kind.replace('_', ' '):<12} {event.by}: {event.reason}"


def _evidence(entry: RolloutEntry, evidence: Evidence) -> Iterator[str]:
    yield f"step {evidence.percent:g}%, watched for {evidence.watched_seconds:.0f} s: {evidence.verdict}"
    for name, side in ((entry.rollout.baseline, evidence.baseline), (entry.rollout.canary, evidence.canary)):
        yield f"  {name:<20} {_numbers(side)}"
    for one in evidence.comparisons:
        yield f"  {one.check:<20} {one.verdict:<11} {one.says}"


def _numbers(side: SideNumbers) -> str:
    if side.error_ratio is None or side.p95_ms is None or side.p99_ms is None:
        return f"{side.requests} requests"
    latency = f"p95 {side.p95_ms:.3g} ms, p99 {side.p99_ms:.3g} ms"
    return f"{side.requests} requests, {side.error_ratio:.2%} failed, {latency}"


def _mark(index: int, percent: float, entry: RolloutEntry) -> str:
    """A step's percent; in brackets where the rollout is."""
    here = index == entry.status.step and entry.status.ended_at is None
    return f"[{percent:g}%]" if here else f"{percent:g}%"


def _router(home: Path | None) -> AdminApi:
    mesh = get_running_mesh(home)
    return AdminApi.find(mesh.urls["router"], mesh.home, what="the router's API")
