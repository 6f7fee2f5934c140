"""The current snapshot, and the gateways that wait for the next.

A gateway says which versions it has and is answered at once if they are not the newest, else with the next snapshot,
or when its time is over. What it lacks is worked out and encoded once for all gateways that have the same.
"""

from collections.abc import Mapping
from datetime import timedelta

import anyio
from toska_common.contracts.routing import ClusterEndpoints, Snapshot, SnapshotDelta, SnapshotPoll
from toska_common.routing.delta import EndpointHistory, build_delta

from toska_router.errors import NoSnapshotYet

Base = tuple[str, frozenset[tuple[str, str]]]
"""What a gateway has: the version of the routes, and that of each cluster's endpoints."""

_MAX_BASES = 64


class Publisher:
    """Hands out snapshots; `publish` wakes everybody who waits."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._version = ""
        self._base: Base | None = None
        self._history = EndpointHistory()
        self._answers: dict[Base, bytes] = {}
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

    def has_newest(self, routes_version: str, endpoints: Mapping[str, str]) -> bool:
        """Whether these are the newest versions."""
        return self._base is not None and (routes_version, frozenset(endpoints.items())) == self._base

    def publish(self, snapshot: Snapshot) -> bool:
        """Make `snapshot` the newest; tells whether it differs from the one before."""
        version = snapshot.version
        if version == self._version:
            return False
        if self._snapshot is not None:
            self._history.record(self._snapshot, snapshot)
        self._snapshot, self._version = snapshot, version
        self.published += 1
        versions = {name: cluster.version for name, cluster in snapshot.endpoints.items()}
        self._base = (snapshot.routes_version, frozenset(versions.items()))
        self._answers.clear()
        self._wake()
        return True

    async def answer(self, poll: SnapshotPoll, longest: timedelta) -> bytes | None:
        """The answer to a poll, in JSON: at once if there is news, else when there is, or after `longest`.

        `None` if there was no snapshot in all that time.
        """
        base = (poll.routes_version, frozenset(poll.endpoints.items()))
        # Who refused a snapshot and cannot say which (it came out as something else) waits for the one after.
        refused = (poll.rejected_version or self._version) if poll.rejected else ""
        self.waiting += 1
        try:
            with anyio.move_on_after(min(poll.wait_seconds, longest.total_seconds())):
                while not self._closed:
                    if self._base is not None and base != self._base and self._version != refused:
                        break
                    await self._changed.wait()
        finally:
            self.waiting -= 1
        if self._snapshot is None:
            return None
        if base != self._base and self._version == refused:
            return _nothing_new(poll)
        return self._encode(base, poll, self._snapshot)

    def close(self) -> None:
        """Answer everybody who waits, and let nobody wait any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _encode(self, base: Base, poll: SnapshotPoll, snapshot: Snapshot) -> bytes:
        answer = self._answers.get(base)
        if answer is None:
            delta = build_delta(poll.routes_version, poll.endpoints, snapshot, self._history)
            answer = delta.model_dump_json(exclude_defaults=True).encode()
            if len(self._answers) >= _MAX_BASES:
                self._answers.clear()
            self._answers[base] = answer
        return answer


def _nothing_new(poll: SnapshotPoll) -> bytes:
    return SnapshotDelta(routes_version=poll.routes_version).model_dump_json(exclude_defaults=True).encode()
