"""Leases: the life of checks that somebody must renew, and the time that they live in.

    granted ──renew──▶ granted          deadline = now + TTL
       │ deadline passes
       ▼
    lapsed ──renew──▶ granted           the check turned critical
       │ critical for the removal time
       ▼
    removed                             with its instance

A check that is reported critical before its deadline starts its removal time at once and may lapse on top of it. A
check that is probed has no TTL and never lapses; its removal time runs all the same.

Lease time is monotonic time minus what was lost: when a sweep comes late, because the loop stalled or the machine
slept, lease time stands still for the lateness, so that nobody who could not be heard is taken for dead.
"""

import heapq
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from toska_common.contracts.discovery import Health

from toska_discovery.check import OUTPUT_MAX_BYTES, Check


class LeaseTime:
    """Monotonic seconds without the stalls; `interval` is how often a sweep is due."""

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._due = now + interval
        self._lost = 0.0

    def at(self, now: float) -> float:
        """The lease time of `now`; notices a sweep that is overdue."""
        lateness = now - self._due
        if lateness > 0:
            self._lost += lateness
            self._due = now
        return now - self._lost

    @property
    def latest(self) -> float:
        """The latest that it can be by now, for what must not be too short and is not told the time."""
        return self._due - self._lost

    def sweep(self, now: float) -> float:
        """The lease time of a sweep at `now`; the next one is due an interval later."""
        moment = self.at(now)
        self._due = now + self._interval
        return moment


@dataclass(slots=True)
class Lease:
    """One check's lease.

    Attributes:
        ttl_s: None for a check that is not renewed but probed.
        deadline: Lease time until which the last report is good.
        critical_since: Lease time at which the check turned critical, while it is.
        output: Of the last report, for what is said when the lease lapses.
        lapsed: Whether the deadline passed without a report since.
        scheduled: When it is looked at next; tells its entry in the queue from outdated ones.
    """

    check_id: str
    ttl_s: float | None
    removal_after_s: float | None
    deadline: float | None
    critical_since: float | None
    output_max_bytes: int = OUTPUT_MAX_BYTES
    output: str = ""
    lapsed: bool = False
    scheduled: float | None = None

    @property
    def due(self) -> float | None:
        """When something happens to it unless it is renewed; `None` if nothing will."""
        lapse = None if self.lapsed else self.deadline
        removal = None
        if self.critical_since is not None and self.removal_after_s is not None:
            removal = self.critical_since + self.removal_after_s
        if lapse is None or removal is None:
            return removal if lapse is None else lapse
        return min(lapse, removal)


class Due(Enum):
    """What has become of a lease."""

    LAPSED = auto()
    REMOVE = auto()


class Leases:
    """All leases, ordered by what is due next. A renewal moves a number and touches no queue."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._queue: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._leases)

    def find(self, check_id: str) -> Lease | None:
        """The lease of a check."""
        return self._leases.get(check_id)

    def grant(self, check: Check, moment: float, *, removes: bool = True) -> Lease:
        """Give a check one whole TTL from `moment` (lease time); replaces the lease that it had.

        One that was critical already stays so from when it was. Without `removes` it has nobody to take along.
        """
        definition = check.definition
        check_id, ttl_s = definition.id, definition.ttl_s
        before = self._leases.get(check_id)
        since = moment if before is None or before.critical_since is None else before.critical_since
        lease = Lease(
            check_id=check_id,
            ttl_s=ttl_s,
            removal_after_s=definition.removal_after_s if removes else None,
            deadline=None if ttl_s is None else moment + ttl_s,
            critical_since=since if check.status is Health.CRITICAL else None,
            output_max_bytes=definition.output_max_bytes,
            output=before.output if before is not None else check.output,
        )
        self._leases[check_id] = lease
        self._schedule(lease)
        return lease

    def renew(self, lease: Lease, moment: float, output: str, *, critical: bool) -> None:
        """Take a report: it is good for one TTL from `moment`."""
        if lease.ttl_s is not None:
            lease.deadline = moment + lease.ttl_s
        lease.output = output
        lease.lapsed = False
        if not critical:
            lease.critical_since = None
        elif lease.critical_since is None:
            lease.critical_since = moment
        self._schedule(lease)

    def drop(self, check_id: str) -> None:
        """Forget a lease; its entry in the queue goes when its time comes."""
        self._leases.pop(check_id, None)
        if len(self._queue) > 2 * len(self._leases) + 64:
            self._rebuild()

    def is_due(self, moment: float) -> bool:
        """Whether there is anything to look at by `moment`."""
        return bool(self._queue) and self._queue[0][0] <= moment

    def take_due(self, moment: float, most: int = sys.maxsize) -> Iterator[tuple[Lease, Due]]:
        """Each lease that something has become of by `moment`, in order; one to remove is forgotten already.

        Looks at `most` of those that may be due: many were renewed, which shows only then.
        """
        for _ in range(most):
            if not self.is_due(moment):
                return
            at, check_id = heapq.heappop(self._queue)
            lease = self._leases.get(check_id)
            if lease is None or lease.scheduled != at:
                continue
            lease.scheduled = None
            if lease.due is None or lease.due > moment:
                self._schedule(lease)
            elif not lease.lapsed and lease.deadline is not None and lease.deadline <= moment:
                lease.lapsed = True
                if lease.critical_since is None:
                    lease.critical_since = moment
                self._schedule(lease)
                yield lease, Due.LAPSED
            else:
                del self._leases[check_id]
                yield lease, Due.REMOVE

    def _schedule(self, lease: Lease) -> None:
        # One entry a lease: a later time is found out when the earlier one comes up.
        due = lease.due
        if due is not None and (lease.scheduled is None or due < lease.scheduled):
            lease.scheduled = due
            heapq.heappush(self._queue, (due, lease.check_id))

    def _rebuild(self) -> None:
        self._queue = [
            (lease.scheduled, lease.check_id) for lease in self._leases.values() if lease.scheduled is not None
        ]
        heapq.heapify(self._queue)
