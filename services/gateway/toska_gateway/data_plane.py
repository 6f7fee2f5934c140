"""What the control part asks of a data plane: the seam between the two halves of the gateway.

`toska_gateway.supervisor.Supervisor` is the Python engine's; another engine has to offer no more than this.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from toska_common.contracts.gateway import IssuerKeys
from toska_common.contracts.gateway_stats import GatewayStats
from toska_common.contracts.routing import Snapshot
from toska_common.contracts.tallies import TallyReport


class WorkerStatus(Protocol):
    """How one worker process is; counters are those since it started."""

    @property
    def pid(self) -> int: ...

    @property
    def state(self) -> str: ...

    @property
    def connections(self) -> int: ...

    @property
    def requests(self) -> int: ...


class DataPlane(Protocol):
    """Moves requests by the snapshot that was applied last."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is the real one, also where 0 was asked for."""
        ...

    @property
    def urls(self) -> Sequence[str]:
        """Every listener as clients find it, the main one first."""
        ...

    def run(self) -> AbstractAsyncContextManager[Any]:
        """Listen and serve for as long as the context is open."""
        ...

    async def apply(self, snapshot: Snapshot) -> None:
        """Serve `snapshot` from now on; returns once every live worker does.

        Raises:
            SnapshotRejected: It cannot be served; the one before stays.
        """
        ...

    async def renew(self) -> Sequence[WorkerStatus]:
        """Replace every worker by a new process without losing a request; returns the new ones.

        Raises:
            RenewalFailed: One has no successor; it goes on.
        """
        ...

    async def purge(self, what: Mapping[str, str]) -> int:
        """Forget stored responses: those of a `url`, of a `route`, or all; returns how many those were."""
        ...

    def end_responses(self, what: Mapping[str, Sequence[str]]) -> None:
        """Forget what events say is out of date: `groups`, `urls` and `routes`, or everything that events may end."""
        ...

    def workers(self) -> Sequence[WorkerStatus]:
        """How each worker is, in a stable order."""
        ...

    async def explain(self, request: bytes, peer: str, scheme: str) -> dict[str, Any]:
        """What would become of a request with this head, coming from `peer`; nothing of it is done.

        Returns:
            Plain data of `toska_common.contracts.gateway.Explanation`, with routes by their rank.

        Raises:
            NoWorker: Nobody is there to serve it.
        """
        ...

    def counted(self) -> TallyReport | None:
        """What was counted on routes under watch (`toska_common.contracts.tallies`); `None` if there are none."""
        ...

    def issuer_keys(self) -> Sequence[IssuerKeys]:
        """How the keys are that tokens are verified with."""
        ...

    async def metrics(self, *, openmetrics: bool = False) -> str:
        """The workers' series, summed, as Prometheus's text or OpenMetrics without its mark of the end."""
        ...

    async def stats(self) -> GatewayStats:
        """What was counted, and how things stand."""
        ...
