"""Telling the router what requests to each endpoint came to, for clients that balance by its word.

Every interval the difference to the look before is sent: of endpoints that had requests, or have some. A report that
does not arrive is lost; the next one tells what came after it.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import anyio
import structlog
from toska_common.contracts.gateway_stats import EndpointCounts, GatewayStats
from toska_common.contracts.names import is_reserved
from toska_common.contracts.selection import Outcome, SelectReport

from toska_gateway.data_plane import DataPlane
from toska_gateway.totals import OTHER

if TYPE_CHECKING:
    import aiohttp

log = structlog.get_logger(__name__)

MAX_OUTCOMES: Final = 2000
_ANSWERED_WITHIN_S: Final = 5.0
_NOTHING: Final = EndpointCounts(key="")


class EndpointReporter:
    """Sends reports, for ever.

    Args:
        session: For the reports.
        url: The router's base URL.
        token: Sent as a bearer.
        name: What the router calls this gateway.
        data_plane: Who counts.
        interval: Between two reports.
    """

    def __init__(
        self,
        session: "aiohttp.ClientSession",
        url: str,
        token: str,
        name: str,
        data_plane: DataPlane,
        interval: timedelta,
    ) -> None:
        self._session = session
        self._url = f"{url}/api/v1/select/report"
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        self._name = name
        self._data_plane = data_plane
        self._interval = interval

    async def run(self) -> None:
        """Report every interval; whatever goes wrong is the next report's."""
        before = await self._data_plane.stats()
        while True:
            await anyio.sleep(self._interval.total_seconds())
            after = await self._data_plane.stats()
            outcomes = list(outcomes_between(before, after))
            before = after
            for start in range(0, len(outcomes), MAX_OUTCOMES):
                await self._send(tuple(outcomes[start : start + MAX_OUTCOMES]))

    async def _send(self, outcomes: tuple[Outcome, ...]) -> None:
        import aiohttp  # here, since a gateway with a routing file never needs it

        body = SelectReport(reporter=self._name, outcomes=outcomes).model_dump_json(exclude_defaults=True)
        timeout = aiohttp.ClientTimeout(total=_ANSWERED_WITHIN_S)
        try:
            async with self._session.post(
                self._url, data=body, headers=self._headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != HTTPStatus.OK:
                    log.debug("endpoint_report_refused", status=response.status)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            log.debug("endpoint_report_lost", reason=str(error) or type(error).__name__)


def outcomes_between(before: GatewayStats, after: GatewayStats) -> Iterator[Outcome]:
    """What came of requests between two looks; the mesh's own clusters are nobody's to select from."""
    known = {cluster.name: {one.key: one for one in cluster.endpoints} for cluster in before.clusters}
    if before.instance != after.instance:
        known = {}
    for cluster in after.clusters:
        if is_reserved(cluster.name):
            continue
        had: Mapping[str, EndpointCounts] = known.get(cluster.name, {})
        for endpoint in cluster.endpoints:
            earlier = had.get(endpoint.key, _NOTHING)
            requests = endpoint.attempts - earlier.attempts
            if endpoint.key == OTHER or requests < 0 or not (requests or endpoint.active or earlier.active):
                continue
            failures = _failures(endpoint) - _failures(earlier)
            yield Outcome(
                cluster=cluster.name,
                endpoint=endpoint.key,
                requests=requests,
                # What has begun before may fail now, and what has begun now may fail later.
                failures=min(max(failures, 0), requests),
                seconds=max(endpoint.seconds - earlier.seconds, 0.0),
                in_flight=endpoint.active,
            )


def _failures(counts: EndpointCounts) -> int:
    broken = sum(counts.failures.values()) + sum(counts.connect_failures.values())
    return broken + sum(count for first, count in counts.classes.items() if first.startswith("5"))
