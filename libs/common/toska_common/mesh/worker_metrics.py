"""One `/metrics` for all workers of an instance, whichever of them is asked.

Each worker offers its samples on a Unix socket in the group's folder; the one that is scraped asks the others and adds
up. What a worker had when it was last asked, or when it ended, stays in a file and goes on counting after it is gone,
so that a sum never falls back because a worker was replaced.

Prometheus's multiprocess mode does this with shared files, but must be chosen before the first import of its library,
knows no custom collectors, and makes each increment cost 2.4 times as much (docs/sdk.md).
"""

import json
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio.abc import SocketStream
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample

log = structlog.get_logger(__name__)

ASK_WITHIN_S = 1.0
_ADDED_UP = frozenset({"counter", "histogram", "summary", "gaugehistogram"})

Family = dict[str, Any]
"""A metric family as it travels: `name`, `type`, `documentation`, `samples` (each a name, pairs of label and value, and
a number)."""


def encode_families(registries: Iterable[CollectorRegistry]) -> list[Family]:
    """The present samples of `registries`."""
    return [
        {
            "name": metric.name,
            "type": metric.type,
            "documentation": metric.documentation,
            "samples": [
                [sample.name, sorted(sample.labels.items()), sample.value]
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ],
        }
        for registry in registries
        for metric in registry.collect()
    ]


def add_up(workers: Iterable[tuple[list[Family], bool]]) -> Iterator[Metric]:
    """Merge the families of several workers, each with whether it still lives.

    Counters and histograms are sums, those of the dead included. Gauges are sums over the living, except what is not a
    quantity (information, moments in time): of that the largest.
    """
    heads: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = defaultdict(dict)
    for families, alive in workers:
        for family in families:
            if not alive and family["type"] not in _ADDED_UP:
                continue
            heads.setdefault(family["name"], family)
            found = values[family["name"]]
            for name, labels, value in family["samples"]:
                key = (name, tuple((label, text) for label, text in labels))
                present = found.get(key)
                found[key] = value if present is None else _combine(family, present, value)
    for name, head in heads.items():
        metric = Metric(name, head["documentation"], head["type"])
        metric.samples = [Sample(sample, dict(labels), value) for (sample, labels), value in values[name].items()]
        yield metric


def _combine(family: Family, one: float, other: float) -> float:
    is_moment = family["name"].endswith(("_info", "_time_seconds", "_timestamp_seconds"))
    if family["type"] in {"info", "stateset"} or (family["type"] == "gauge" and is_moment):
        return max(one, other)
    return one + other


class WorkerMetrics:
    """The samples of this worker for the others, and of the others for this one."""

    def __init__(self, folder: Path, collect: Callable[[], list[Family]]) -> None:
        self._folder = folder
        self._collect = collect
        self._own = _base(folder, os.getpid())

    async def serve(self) -> None:
        """Answer other workers until cancelled, and leave the last samples behind."""
        path = self._own.with_suffix(".sock")
        path.unlink(missing_ok=True)
        try:
            async with await anyio.create_unix_listener(path, mode=0o600) as listener:
                await listener.serve(self._answer)
        finally:
            path.unlink(missing_ok=True)
            _remember(self._own, self._collect())

    def has_others(self) -> bool:
        """Whether there is, or was, another worker."""
        return bool(self._others())

    async def gather(self) -> list[tuple[list[Family], bool]]:
        """The families of all workers, this one first, each with whether it lives."""
        found: list[tuple[list[Family], bool]] = [(self._collect(), True)]

        async def ask(base: Path) -> None:
            found.append(await _ask(base))

        async with anyio.create_task_group() as group:
            for base in self._others():
                group.start_soon(ask, base)
        return found

    def _others(self) -> set[Path]:
        known = {path.with_suffix("") for path in self._folder.glob("worker-*") if path.suffix in {".sock", ".json"}}
        return known - {self._own}

    async def _answer(self, stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await stream.send(json.dumps(self._collect()).encode())


async def _ask(base: Path) -> tuple[list[Family], bool]:
    received = b""
    try:
        with anyio.fail_after(ASK_WITHIN_S):
            async with await anyio.connect_unix(base.with_suffix(".sock")) as stream:
                async for chunk in stream:
                    received += chunk
        families: list[Family] = json.loads(received)
    except (OSError, TimeoutError, ValueError, anyio.BrokenResourceError):
        return _recall(base), _is_alive(base)
    _remember(base, families)
    return families, True


def _base(folder: Path, pid: int) -> Path:
    return folder / f"worker-{pid}"


def _is_alive(base: Path) -> bool:
    # Busy or dead? The socket of a dead process refuses at once, and its file is then of no more use.
    path = base.with_suffix(".sock")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            path.unlink(missing_ok=True)
            return False
    return True


def _remember(base: Path, families: list[Family]) -> None:
    draft = base.with_suffix(f".{os.getpid()}.draft")
    try:
        draft.write_text(json.dumps(families), encoding="utf-8")
        draft.replace(base.with_suffix(".json"))
    except OSError as error:
        log.warning("worker_metrics_lost", reason=str(error))


def _recall(base: Path) -> list[Family]:
    try:
        return json.loads(base.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
