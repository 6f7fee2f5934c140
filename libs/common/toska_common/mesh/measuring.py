"""What an app measures of itself: `/metrics`, over all its workers, and the report that rides on each renewal."""

import time
from itertools import chain

from prometheus_client import REGISTRY
from starlette.requests import Request
from starlette.responses import Response

from toska_common.contracts.discovery import Report
from toska_common.mesh.callers import Callers
from toska_common.mesh.vitals import Vitals, read_totals
from toska_common.mesh.worker_metrics import Family, WorkerMetrics, add_up, encode_families
from toska_common.metrics import ServiceMetrics, render


class Measuring:
    """The metrics of an app.

    Args:
        capacity: Requests at a time that it can serve well; unknown if `None`.
    """

    def __init__(self, capacity: int | None) -> None:
        self.metrics = ServiceMetrics()
        self.callers = Callers(self.metrics.registry)
        self._vitals = Vitals(capacity, time.monotonic())

    async def serve(self, request: Request, workers: WorkerMetrics | None) -> Response:
        """Answer `/metrics`."""
        if workers is None or not workers.has_others():
            collected = chain(self.metrics.registry.collect(), REGISTRY.collect())
        else:
            collected = add_up(await workers.gather())
        body, content_type = render(collected, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    def collect(self) -> list[Family]:
        """The present metrics of this process, for the other workers."""
        return encode_families((self.metrics.registry, REGISTRY))

    async def report(self, workers: WorkerMetrics | None) -> Report:
        """The report of a renewal, of this process or of all workers."""
        if workers is None or not workers.has_others():
            totals = read_totals(self.metrics.registry.collect())
        else:
            totals = read_totals(add_up(await workers.gather()))
        return self._vitals.report(totals, time.monotonic())
