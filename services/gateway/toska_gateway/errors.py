"""The gateway's errors, besides the shared ones of `toska_common.errors`.

    InvalidInput
    └── SnapshotRejected      422  caller    a snapshot or a routing file that cannot be served; nothing changed
    MeshError
    ├── NoWorker              503  mesh      no process of the data plane is running
    └── RenewalFailed         500  mesh      a worker's successor did not start; those before go on

What the data plane answers to its callers are codes of its own (`x-toska-error`), not exceptions; each code, like each
error's, has a page under `/problems`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from toska_common.errors import InvalidInput, MeshError

_NAMED = 3


class SnapshotRejected(InvalidInput):
    """Routing that cannot be served. It was refused whole: what served before goes on serving.

    Args:
        problems: All that is wrong, each `{"field", "reason"}`, with `line` where a file was read.
    """

    code, title = "snapshot-rejected", "Snapshot refused"

    def __init__(self, problems: Sequence[Mapping[str, Any]]) -> None:
        self.problems = [dict(problem) for problem in problems]
        named = [_sentence(problem) for problem in self.problems[:_NAMED]]
        more = len(self.problems) - _NAMED
        super().__init__("; ".join([*named, f"and {more} more"] if more > 0 else named), problems=self.problems)


class RenewalFailed(MeshError):
    """A new worker does not serve, so the one that it should succeed stays."""

    status, code, title = 500, "renewal-failed", "Workers not renewed"


class NoWorker(MeshError):
    """No process of the data plane is there to ask."""

    status, code, title = 503, "no-worker", "No worker running"


def _sentence(problem: Mapping[str, Any]) -> str:
    place = f"line {problem['line']}, {problem['field']}" if problem.get("line") else str(problem["field"])
    return f"{place}: {problem['reason']}"
