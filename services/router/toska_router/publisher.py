"""The current snapshot, and the gateways that wait for the next.

A gateway says which version it has and is answered at once if that is not the newest, else with the next snapshot, or
when its time is over. What it lacks is worked out and encoded once for all gateways that have the same. A version that
is not known here (of another router, or from long ago) is asked back for, by name: then the gateway's inventory tells.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import anyio
from toska_common.clock import Clock
from toska_common.contracts.routing import ClusterEndpoints, Inventory, Snapshot, SnapshotDelta, SnapshotPoll
from toska_common.routing.delta import build_delta, compare_inventory, inventory_version
from toska_common.routing.history import Difference, History

from toska_router.errors import NoSnapshotYet

_MAX_BASES: Final = 64


class Publisher:
    """Hands out snapshots; `publish` wakes everybody who waits.

    Args:
        clock: Tells when each snapshot was published.

    Attributes:
        published_at: When the newest was, in monotonic seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.published_at: float | None = None
        self._snapshot: Snapshot | None = None
        self._version = ""
        self._history = History()
        self._answers: dict[str, bytes] = {}
        self._changed = anyio.Event()
        self._closed = False
        self.waiting = 0
        self.published = 0

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot; `None` before the first."""
        return self._snapshot

    @property
    def version(self) -> str:
        """The newest snapshot's version; empty before the first."""
        return self._version

    @property
    def pools(self) -> Mapping[str, ClusterEndpoints]:
        """The newest snapshot's endpoints by cluster; none before the first."""
        return {} if self._snapshot is None else self._snapshot.endpoints

    @property
    def endpoint_count(self) -> int:
        """How many endpoints the newest snapshot has in all."""
        return sum(len(pool.endpoints) for pool in self.pools.values())

    def get_snapshot(self) -> Snapshot:
        """The newest snapshot.

        Raises:
            NoSnapshotYet: There is none before the registry was seen.
        """
        if self._snapshot is None:
            raise NoSnapshotYet("the registry has not answered since the router started; gateways keep what they have")
        return self._snapshot

    def publish(self, snapshot: Snapshot) -> bool:
        """Make `snapshot` the newest; tells whether it differs from the one before."""
        version = snapshot.version
        if version == self._version:
            return False
        if self._snapshot is not None:
            self._history.record(self._version, self._snapshot, snapshot)
        self._snapshot, self._version = snapshot, version
        self.published_at = self._clock.monotonic()
        self.published += 1
        self._answers.clear()
        self._wake()
        return True

    async def answer(self, poll: SnapshotPoll, longest: timedelta) -> bytes | None:
        """The answer to a poll, in JSON: at once if there is news, else when there is, or after `longest`.

        `None` if there was no snapshot in all that time.
        """
        base = poll.version if poll.inventory is None else inventory_version(poll.inventory)
        # Who refused a snapshot and cannot say which (it came out as something else) waits for the one after.
        refused = (poll.rejected_version or self._version) if poll.rejected else ""
        self.waiting += 1
        try:
            with anyio.move_on_after(min(poll.wait_seconds, longest.total_seconds())):
                while not self._closed:
                    if self._snapshot is not None and self._version not in (base, refused):
                        break
                    await self._changed.wait()
        finally:
            self.waiting -= 1
        if self._snapshot is None:
            return None
        if self._version in (base, refused):
            return _nothing_new(base)
        return self._encode(base, poll.inventory, self._snapshot)

    async def wait_for_change(self) -> None:
        """Return when another snapshot is published, or nobody is to wait any more."""
        await self._changed.wait()

    def close(self) -> None:
        """Answer everybody who waits, and let nobody wait any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _encode(self, base: str, inventory: Inventory | None, snapshot: Snapshot) -> bytes:
        answer = self._answers.get(base)
        if answer is None:
            difference = self._find_difference(base, inventory, snapshot)
            if base and difference is None:
                return SnapshotDelta(version=base, base=base, base_unknown=True).model_dump_json().encode()
            delta = build_delta(base, difference, snapshot, self._version)
            answer = delta.model_dump_json(exclude_defaults=True).encode()
            if len(self._answers) >= _MAX_BASES:
                self._answers.clear()
            self._answers[base] = answer
        return answer

    def _find_difference(self, base: str, inventory: Inventory | None, snapshot: Snapshot) -> Difference | None:
        if not base:
            return None
        known = self._history.since(base)
        if known is not None or inventory is None:
            return known
        return compare_inventory(inventory, snapshot)


def _nothing_new(version: str) -> bytes:
    return SnapshotDelta(version=version, base=version).model_dump_json(exclude_defaults=True).encode()
