"""Following the router: a blocking query after the other, each answered with what has changed since.

poll ──delta──▶ apply ──▶ poll …        refused: the last good stays, and the next poll says what was refused and why
  ├──version unknown there──▶ poll with the inventory
  └──router away──▶ pause (doubled each time, at random below that) ──▶ poll
"""

import random
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

import anyio
import structlog
from anyio import to_thread
from pydantic import ValidationError
from toska_common.clients.consul_watch import Sleep
from toska_common.contracts.routing import Snapshot, SnapshotDelta, SnapshotPoll
from toska_common.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from toska_common.routing.delta import DeltaMismatch, apply_delta, inventory_of
from toska_common.routing.neighbours import neighbours_of
from toska_common.routing.reading import SMALL, read_delta

from toska_gateway.bounds import read_at_most
from toska_gateway.errors import SnapshotRejected
from toska_gateway.routing import Routing

if TYPE_CHECKING:
    import aiohttp

log = structlog.get_logger(__name__)

WAIT = timedelta(seconds=55)
WAIT_WHILE_WATCHING = timedelta(seconds=1)
"""How long a poll is kept open while there are routes under watch: the next one tells what was counted meanwhile."""
ANSWER_WITHIN = timedelta(seconds=10)
MAX_BYTES = 64 * 2**20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
_TOO_SOON_S = 0.05
_PART_BYTES: Final = 200
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SnapshotFollower:
    """Keeps `routing` at the router's newest snapshot.

    Args:
        session: For the polls.
        url: The router's base URL.
        token: Sent as a bearer; routers on loopback do not ask for it.
        name: What the router calls this gateway.
        routing: Where snapshots go.
        wait: How long the router may keep a poll open.
        sleep: The pause after a poll that failed.

    Attributes:
        reachable: Whether the last poll was answered.
        error: Why it was not.
        rejected: Why the router's newest snapshot was refused; empty if it was not.
        rejected_version: Which that was.
    """

    def __init__(
        self,
        session: "aiohttp.ClientSession",
        url: str,
        token: str,
        name: str,
        routing: Routing,
        *,
        wait: timedelta = WAIT,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._session = session
        self.url = url
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        self._name = name
        self._routing = routing
        self._wait = wait
        self._sleep = sleep
        self._from_scratch = False
        self._tell_inventory = False
        self.reachable = False
        self._said: bool | None = None  # what was logged last: that the router is reachable, that it is not, or nothing
        self.error = ""
        self.rejected = ""
        self.rejected_version = ""

    async def run(self) -> None:
        """Follow for ever; every failure is sat out."""
        failures = 0
        while True:
            asked_at = anyio.current_time()
            try:
                delta = await self._ask()
                changed = await self._take(delta)
            except (UpstreamError, DeltaMismatch) as error:
                failures += 1
                self.reachable, self.error = False, error.detail
                # One broken connection is how a mesh that stops looks from here; a second one is an outage.
                if not isinstance(error, UpstreamUnavailable) or failures > 1:
                    self._say_unreachable()
                await self._sleep(pause(failures))
                continue
            if not self._said:
                log.info("router_reached", url=self.url)
                self._said = True
            self.reachable, self.error, failures = True, "", 0
            if not changed and anyio.current_time() - asked_at < _TOO_SOON_S:
                # A poll that comes back at once with nothing would otherwise be repeated as fast as it is answered.
                await anyio.sleep(pause(1))

    def _say_unreachable(self) -> None:
        if self._said is not False:
            log.warning("router_unreachable", url=self.url, error=self.error, serving=self._routing.source)
            self._said = False

    async def _take(self, delta: SnapshotDelta) -> bool:
        """Serve what the router sent; tells whether that was anything new."""
        base = self._base
        if delta.base_unknown:
            known, self._tell_inventory = self._tell_inventory, True
            return not known
        self._tell_inventory = False
        if base is not None and delta.version == base.version:
            return False
        try:
            snapshot = await _aside(_size(delta), _apply, base, delta)
        except DeltaMismatch:
            self._from_scratch = True
            raise
        self._from_scratch = False
        try:
            await self._routing.apply(snapshot, "router")
        except SnapshotRejected as error:
            seen = self.rejected_version == delta.version
            self.rejected, self.rejected_version = error.detail, delta.version
            if not seen:
                log.error("snapshot_rejected", version=delta.version, problems=error.problems)
            return not seen
        self.rejected = self.rejected_version = ""
        return True

    @property
    def _base(self) -> Snapshot | None:
        """What the next delta is put on."""
        return None if self._from_scratch else self._routing.current

    def _poll(self) -> SnapshotPoll:
        base = self._base
        counted = self._routing.counted()
        wait = self._wait if counted is None else min(self._wait, WAIT_WHILE_WATCHING)
        return SnapshotPoll(
            gateway=self._name,
            version=base.version if base else "",
            routes_version=base.routes_version if base else "",
            inventory=inventory_of(base) if base and self._tell_inventory else None,
            # The first poll after an outage is answered at once: it tells that the router is back.
            wait_seconds=wait.total_seconds() if self.reachable else 0,
            rejected=self.rejected[:4000],
            rejected_version=self.rejected_version,
            counted=counted,
        )

    async def _ask(self) -> SnapshotDelta:
        import aiohttp  # here, since a gateway with a routing file never needs it

        poll = self._poll()
        total = poll.wait_seconds + ANSWER_WITHIN.total_seconds()
        try:
            async with self._session.post(
                f"{self.url}/api/v1/snapshot",
                data=poll.model_dump_json(exclude_defaults=True),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=total, sock_connect=ANSWER_WITHIN.total_seconds()),
                allow_redirects=False,
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise UpstreamError(f"answered with status {response.status}")
                body = await read_at_most(response, MAX_BYTES)
        except TimeoutError as error:
            raise UpstreamTimeout(f"no answer within {total:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnavailable(str(error) or type(error).__name__) from error
        try:
            return await _aside(len(body), read_delta, body)
        except ValueError as error:
            problems = error.error_count() if isinstance(error, ValidationError) else 1
            raise UpstreamError(f"sent what is not understood here ({problems} problems)") from error


async def _aside(size: int, work: Callable[[*Ts], T], *given: *Ts) -> T:
    """Do what a small delta needs at once, and in a thread what would keep everybody else waiting."""
    return await to_thread.run_sync(work, *given) if size > SMALL else work(*given)


def _size(delta: SnapshotDelta) -> int:
    """About how many bytes a delta came in."""
    table = delta.table
    parts = len(delta.endpoints) + (0 if table is None else len(table.routes) + len(table.clusters))
    return parts * _PART_BYTES


def _apply(base: Snapshot | None, delta: SnapshotDelta) -> Snapshot:
    """Put a delta on top, and work out what is asked of every table."""
    snapshot = apply_delta(base, delta)
    neighbours_of(snapshot.table)
    return snapshot


def pause(failures: int) -> float:
    """Seconds until the next try: doubled with each failure, then spread, so that gateways do not come all at once."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads retries, guards nothing
