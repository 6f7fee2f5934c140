"""What exchanges and queues of a namespace are called, and what they are declared with. Pure.

Arguments never depend on what somebody configures, but for the log's bounds: RabbitMQ refuses to declare a queue again
with others. A group's name holds no colon, so no two groups can mean the same queue.
"""

from collections.abc import Mapping
from datetime import timedelta

from toska_common.events.amqp.options import AmqpOptions
from toska_common.events.transport import Priority

Arguments = dict[str, str | int | bool]

SLOTS = 64
"""Over how many numbers publishers spread keys; the lanes of an ordered group share them out."""

DELIVERY_LIMIT = 50
"""Redeliveries after which RabbitMQ itself buries an event: consumers that die of it before they can say anything."""

RETRY_GRACE = timedelta(minutes=10)
"""How much longer than its wait a queue for retries stands unused."""

SCHEDULE_UNIT_MS = 100
SCHEDULE_LEVELS = 27
"""Level n holds for 2^n units; together they reach 155 days."""

_QUORUM: Arguments = {"x-queue-type": "quorum"}
_NEVER = 1_000_000_000


class Names:
    """Everything that is called something."""

    def __init__(self, options: AmqpOptions) -> None:
        self._options = options
        base = self.base = options.namespace
        self.events = {
            Priority.LOW: f"{base}.events:low",
            Priority.NORMAL: f"{base}.events",
            Priority.HIGH: f"{base}.events:high",
        }
        self.ephemeral = f"{base}.ephemeral"
        self.unwanted = f"{base}.unwanted"
        self.last_unwanted = f"{self.unwanted}:last"
        self.log = f"{base}.log"
        self.catalog = f"{base}.catalog"
        self.dead_letters = f"{base}.dead"
        self.expired = f"{base}.expired"

    def queue(self, group: str, priority: Priority = Priority.NORMAL) -> str:
        """A group's queue for events of one priority."""
        name = f"{self.base}.group.{group}"
        return name if priority is Priority.NORMAL else f"{name}:{priority.name.lower()}"

    def lane(self, group: str, number: int) -> str:
        """One of the queues of an ordered group."""
        return f"{self.queue(group)}:lane-{number}"

    def lanes(self, group: str) -> str:
        """The exchange that spreads an ordered group's events over its lanes."""
        return f"{self.queue(group)}:lanes"

    def keyless(self, group: str) -> str:
        """The exchange for those that no lane is bound to."""
        return f"{self.queue(group)}:keyless"

    def live(self, group: str) -> str:
        """A group's queue for ephemeral events, which is there while a member is."""
        return f"{self.queue(group)}:live"

    def members(self, group: str) -> str:
        """A queue without events, which the members of an ordered group consume to be counted."""
        return f"{self.queue(group)}:members"

    def dead(self, group: str) -> str:
        """A group's dead letters."""
        return f"{self.queue(group)}:dead"

    def retry(self, queue: str, wait_ms: int) -> str:
        """Where events wait that go back to `queue`."""
        return f"{queue}:retry-{wait_ms}"

    def lock(self, what: str) -> str:
        """A queue that stands for holding a lock."""
        return f"{self.base}.lock.{what}"

    def level(self, number: int) -> str:
        """The exchange, and the queue, of one level of the schedule."""
        return f"{self.base}.schedule:{number}"

    # What they are declared with.

    def work_arguments(self, group: str, *, lane: bool = False) -> Arguments:
        """A queue that hands out events of a group; one that buries says whose they were by the routing key."""
        return {
            **_QUORUM,
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": self.dead_letters,
            "x-dead-letter-routing-key": group,
            **({"x-single-active-consumer": True} if lane else {}),
        }

    def unwanted_arguments(self) -> Arguments:
        """The queue of the last event that nobody wanted."""
        return {**_QUORUM, "x-max-length": 1}

    def dead_arguments(self) -> Arguments:
        """A queue of dead letters: read again and again, and nothing is ever dropped for that."""
        return {**_QUORUM, "x-delivery-limit": _NEVER}

    def retry_arguments(self, queue: str, wait_ms: int) -> Arguments:
        """A queue from which everything goes back to `queue` after the same wait, so that none waits behind another."""
        expires = wait_ms + int(RETRY_GRACE.total_seconds() * 1000)
        return {**_waiting("", wait_ms), "x-dead-letter-routing-key": queue, "x-expires": expires}

    def level_arguments(self, number: int) -> Arguments:
        """The queue of one level of the schedule."""
        return _waiting(self.below(number), SCHEDULE_UNIT_MS << number)

    def below(self, number: int) -> str:
        """Where an event goes after a level of the schedule."""
        return self.level(number - 1) if number else self.events[Priority.NORMAL]

    def log_arguments(self) -> Arguments:
        """The stream of all events."""
        most = self._options.log_max_bytes
        age = max(1, round(self._options.log_max_age.total_seconds()))
        segment = max(1 << 16, min(64 << 20, most // 8))
        return {
            "x-queue-type": "stream",
            "x-max-length-bytes": most,
            "x-max-age": f"{age}s",
            "x-stream-max-segment-size-bytes": segment,
        }

    def catalog_arguments(self) -> Arguments:
        """The stream of what topics and groups there are."""
        return {
            "x-queue-type": "stream",
            "x-max-length-bytes": 64 << 20,
            "x-stream-max-segment-size-bytes": 4 << 20,
        }


def _waiting(then: str, wait_ms: int) -> Arguments:
    # At-least-once dead lettering keeps an event until the next queue confirmed it; it asks for reject-publish.
    return {
        **_QUORUM,
        "x-message-ttl": wait_ms,
        "x-dead-letter-exchange": then,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": _NEVER,
    }


def retry_wait_ms(after: timedelta) -> int:
    """A wait of at least `after` out of few different ones, so that there are few queues: three binary digits of it."""
    wanted = max(1, -(-after // timedelta(milliseconds=1)))
    step = 1 << max(0, wanted.bit_length() - 4)
    return -(-wanted // step) * step


def levels_of(wait_ms: int, *, least: int = 0) -> list[int] | None:
    """Which levels of the schedule hold an event so that it waits no shorter; `None` if that is too far off.

    Args:
        least: The lowest level that may; waits are rounded up to what it holds for.
    """
    units = -(-wait_ms // (SCHEDULE_UNIT_MS << least)) << least
    if units >> SCHEDULE_LEVELS:
        return None
    return [level for level in range(SCHEDULE_LEVELS) if units >> level & 1]


def lane_slots(lanes: int) -> Mapping[int, list[int]]:
    """Which slots each lane takes."""
    return {lane: list(range(lane, SLOTS, lanes)) for lane in range(lanes)}
