"""What Envoy counts of routes under watch, in the words in which our own workers report it (`toska_gateway.watches`).

Envoy's logger tells of each request its token, the cluster that was chosen for it, and how it ended: status, flags, the
gateway's own code, how often it was tried, whether a fallback answered. Of that follows here whether it failed.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from toska_common.envoy.failovers import stands_for
from toska_common.envoy.telling import (
    ATTEMPTS_TAG,
    CLUSTER_TAG,
    ERROR_TAG,
    FALLBACK_TAG,
    FLAGS_TAG,
    HEDGED_TAG,
    PREFIX,
    STATUS_TAG,
    WATCH_TAG,
    WATCHED,
    WATCHED_TIME,
)
from toska_common.latencies import BOUNDS_US

from toska_gateway.envoy.exposition_text import Sample

_COUNT: Final = f"envoy_{PREFIX}_{WATCHED}"
_BUCKET: Final = f"envoy_{PREFIX}_{WATCHED_TIME}_bucket"
_NONE: Final = ("", "-")
_LEFT: Final = "DC"
"""Envoy's flag of a client that broke off."""
_BROKEN: Final = frozenset({"UC", "UR", "UPE", "UT", "LR", "SI", "DPE", "UMSDR"})
_OF_UPSTREAMS: Final = ("upstream-", "bad-upstream-")

News = Callable[..., float]
"""What has come since the last reading, of a value and its key."""


def watched(samples: Iterable[Sample], news: News) -> list[list[Any]]:
    """Token, cluster and counts of each that there is something new of."""
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    below: dict[tuple[str, ...], float] = {}
    for sample in samples:
        if sample.name not in (_COUNT, _BUCKET):
            continue
        token, key = sample.labels.get(WATCH_TAG, ""), tuple(sorted(sample.labels.items()))
        text = [f"{name}={value}" for name, value in key]
        if sample.name == _BUCKET:
            # Cumulative, in rising order: what is new in one is what is new up to it, less that of those below.
            one = tuple(part for part in text if not part.startswith("le="))
            rising = news(sample.value, WATCHED_TIME, *text)
            count, below[one] = int(rising - below.get(one, 0.0)), rising
        else:
            count = int(news(sample.value, WATCHED, *text))
        if not count or token in _NONE or not _went_on(sample):
            continue
        cell = cells.setdefault((token, stands_for(sample.labels.get(CLUSTER_TAG, ""))), {})
        if sample.name == _COUNT:
            _count(cell, sample, count)
        elif not _has_left(sample):
            _add(cell, "buckets", str(_place(sample.labels["le"])), count)
    return [[*names, {"requests": 0, "gone": 0, "reasons": {}, "buckets": {}, **cell}] for names, cell in cells.items()]


def _count(cell: dict[str, Any], sample: Sample, count: int) -> None:
    if _has_left(sample):
        cell["gone"] = cell.get("gone", 0) + count
        return
    cell["requests"] = cell.get("requests", 0) + count
    if reason := _reason(sample):
        _add(cell, "reasons", reason, count)


def _reason(sample: Sample) -> str:
    """Why a request has failed, or what alone saved it; empty if it went well."""
    labels = sample.labels
    status, fallback, error = (labels.get(name, "") for name in (STATUS_TAG, FALLBACK_TAG, ERROR_TAG))
    if fallback not in _NONE:
        return "fallback"
    if status.isdigit() and int(status) >= 500:
        return status if error in _NONE else error
    if _flags(sample) & _BROKEN:
        return "cut-off"
    if labels.get(HEDGED_TAG, "") not in _NONE:
        return ""  # Envoy does not tell a rival from a retry
    return "retried" if labels.get(ATTEMPTS_TAG, "").isdigit() and int(labels[ATTEMPTS_TAG]) > 1 else ""


def _went_on(sample: Sample) -> bool:
    """Whether the route's policies let a request pass: it was tried, or there was nobody to try."""
    tried = sample.labels.get(ATTEMPTS_TAG, "")
    return tried not in ("", "-", "0") or sample.labels.get(ERROR_TAG, "").startswith(_OF_UPSTREAMS)


def _has_left(sample: Sample) -> bool:
    return _LEFT in _flags(sample)


def _flags(sample: Sample) -> frozenset[str]:
    return frozenset(sample.labels.get(FLAGS_TAG, "").split(","))


def _place(bound: str) -> int:
    if bound == "+Inf":
        return len(BOUNDS_US)
    wanted = float(bound)
    return min(range(len(BOUNDS_US)), key=lambda place: abs(BOUNDS_US[place] - wanted))


def _add(cell: dict[str, Any], kind: str, name: str, count: int) -> None:
    inside: dict[str, int] = cell.setdefault(kind, {})
    inside[name] = inside.get(name, 0) + count
