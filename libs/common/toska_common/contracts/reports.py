"""How an instance's report travels: as the output of its lease's check, since that is what every renewal can bring.

Consul's API has a text for each report on a TTL check. It changes nothing in the catalog while the verdict is the same,
so reports wake no watcher. What traffic follows is another matter: the score in quarters, in the metadata.
"""

from collections.abc import Mapping

from pydantic import ValidationError

from toska_common.contracts.discovery import META_SCORE, OTHER_CALLERS, Health, Report

MAX_OUTPUT_BYTES = 3500
"""Consul keeps 4,096 bytes of an output, and some are for what it adds itself."""
SCORE_STEPS = 4
"""A whole share of traffic, in the steps that it can be lowered by."""
_BEGINNING = '{"score":'
_OF_HEALTH = {Health.PASSING: 1.0, Health.WARNING: 0.5, Health.CRITICAL: 0.0}


def encode_report(report: Report) -> str:
    """The output of a check; callers that it has no room for, the rarest, are added up as others."""
    callers = dict(sorted(report.callers.items(), key=lambda item: -item[1]))
    while len(text := report.model_copy(update={"callers": callers}).model_dump_json()) > MAX_OUTPUT_BYTES:
        rarest = next(name for name in reversed(callers) if name != OTHER_CALLERS)
        callers[OTHER_CALLERS] = callers.get(OTHER_CALLERS, 0) + callers.pop(rarest)
    return text


def decode_report(output: str) -> Report | None:
    """The report in a check's output; `None` if there is none."""
    if not output.startswith(_BEGINNING):
        return None
    try:
        return Report.model_validate_json(output)
    except ValidationError:
        return None


def score_of(health: Health, report: Report | None) -> float:
    """The health score: what the checks say, times what the instance says."""
    return round(_OF_HEALTH[health] * (1.0 if report is None else report.score), 3)


def score_steps(meta: Mapping[str, str]) -> int:
    """How many of `SCORE_STEPS` parts of its share an instance gets by its metadata; at least one."""
    text = meta.get(META_SCORE)
    if text is None:
        return SCORE_STEPS
    try:
        return min(SCORE_STEPS, max(1, round(float(text) * SCORE_STEPS)))
    except (ValueError, OverflowError):
        return SCORE_STEPS


def with_steps(meta: Mapping[str, str], steps: int) -> dict[str, str]:
    """Metadata that gives an instance `steps` parts of its share."""
    rest = {key: value for key, value in meta.items() if key != META_SCORE}
    return rest if steps >= SCORE_STEPS else {**rest, META_SCORE: f"{steps / SCORE_STEPS:g}"}
