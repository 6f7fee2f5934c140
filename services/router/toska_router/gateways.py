"""Which gateway runs which version, as their polls tell. Bounded: whoever stays away is forgotten, the oldest first."""

from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from toska_common.clock import Clock
from toska_common.contracts.router import GatewayStatus
from toska_common.contracts.routing import SnapshotPoll

from toska_router.publisher import Publisher

FORGOTTEN_AFTER = timedelta(minutes=10)
MAX_GATEWAYS = 1_000


@dataclass(slots=True)
class _Gateway:
    poll: SnapshotPoll
    seen_at: datetime
    seen_s: float
    waiting: int = 0
    applied_at: datetime | None = None
    applied_after_s: float | None = None


class Gateways:
    """The gateways that have asked lately."""

    def __init__(self, publisher: Publisher, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock
        self._known: OrderedDict[str, _Gateway] = OrderedDict()

    @contextmanager
    def polling(self, poll: SnapshotPoll) -> Generator[None]:
        """Note a poll, for as long as it is being answered."""
        gateway = self._note(poll)
        gateway.waiting += 1
        try:
            yield
        finally:
            gateway.waiting -= 1
            if poll.gateway in self._known:
                self._known.move_to_end(poll.gateway)
            gateway.seen_at, gateway.seen_s = self._clock.now(), self._clock.monotonic()

    def list_statuses(self) -> list[GatewayStatus]:
        """What is known of each, by name."""
        self._forget()
        return [_status(name, known, self._publisher) for name, known in sorted(self._known.items())]

    def __len__(self) -> int:
        self._forget()
        return len(self._known)

    def _note(self, poll: SnapshotPoll) -> _Gateway:
        gateway = self._known.get(poll.gateway)
        known_version = "" if gateway is None else gateway.poll.version
        if gateway is None:
            gateway = self._known[poll.gateway] = _Gateway(poll, self._clock.now(), self._clock.monotonic())
        gateway.poll, gateway.seen_at, gateway.seen_s = poll, self._clock.now(), self._clock.monotonic()
        if poll.inventory is not None:  # it is not kept: it can be a megabyte
            gateway.poll = poll.model_copy(update={"inventory": None})
        if poll.version != known_version:
            gateway.applied_at, gateway.applied_after_s = gateway.seen_at, self._since_published(poll, gateway.seen_s)
        self._known.move_to_end(poll.gateway)
        self._forget_oldest()
        return gateway

    def _since_published(self, poll: SnapshotPoll, now: float) -> float | None:
        published_at = self._publisher.published_at
        return None if poll.version != self._publisher.version or published_at is None else now - published_at

    def _forget(self) -> None:
        oldest = self._clock.monotonic() - FORGOTTEN_AFTER.total_seconds()
        gone = [name for name, known in self._known.items() if not known.waiting and known.seen_s < oldest]
        for name in gone:
            del self._known[name]

    def _forget_oldest(self) -> None:
        """The same for those that were seen before all others, which is quick enough for every poll."""
        oldest = self._clock.monotonic() - FORGOTTEN_AFTER.total_seconds()
        while (first := next(iter(self._known.values()))).seen_s < oldest and not first.waiting:
            self._known.popitem(last=False)
        while len(self._known) > MAX_GATEWAYS:
            self._known.popitem(last=False)


def _status(name: str, gateway: _Gateway, publisher: Publisher) -> GatewayStatus:
    poll = gateway.poll
    return GatewayStatus(
        name=name,
        version=poll.version,
        routes_version=poll.routes_version,
        up_to_date=bool(poll.version) and poll.version == publisher.version,
        waiting=gateway.waiting > 0,
        last_seen=gateway.seen_at,
        applied_at=gateway.applied_at,
        applied_after_seconds=gateway.applied_after_s,
        rejected=poll.rejected,
        rejected_version=poll.rejected_version,
    )
