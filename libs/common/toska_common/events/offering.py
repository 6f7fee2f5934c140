"""Events that must not make their publisher wait: held in memory until the broker takes them, the oldest dropped.

For what is a notification and not the truth; who needs certainty writes the event beside the state (the outbox).
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
import structlog

from toska_common.errors import MeshError
from toska_common.events.errors import EventsUnavailable, LogFull, SchemaRefused
from toska_common.events.metrics import EventMetrics
from toska_common.events.transport import Message

log = structlog.get_logger(__name__)

_BATCH = 256
_WAIT_S = (0.2, 5.0)
_PASSING = (EventsUnavailable, LogFull, SchemaRefused)
"""What is over some time; any other error is about an event."""


class Offers:
    """A bounded row of events that wait to be published, in order.

    Args:
        publish: Publishes a batch, or raises.
        size: Most events that wait.
    """

    def __init__(
        self, publish: Callable[[Sequence[Message]], Awaitable[None]], metrics: EventMetrics, size: int = 10_000
    ) -> None:
        self._publish = publish
        self._metrics = metrics
        self._waiting: deque[Message] = deque()
        self._size = size
        self._came = anyio.Event()
        self._publishing = anyio.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message) -> None:
        """Take one; never waits."""
        if len(self._waiting) >= self._size:
            self._waiting.popleft()
            self._metrics.dropped()
        self._waiting.append(message)
        self._came.set()

    async def run(self) -> None:
        """Publish what comes, for ever; a broker that is away, or has no room, is asked again."""
        wait_s, told = _WAIT_S[0], ""
        while True:
            await self._came.wait()
            try:
                await self._publish_some()
            except _PASSING as error:
                if not isinstance(error, EventsUnavailable) and error.detail != told:  # the bus says that it is away
                    told = error.detail
                    log.warning("offers_wait", events=len(self._waiting), reason=told)
                await anyio.sleep(wait_s)
                wait_s = min(_WAIT_S[1], wait_s * 2)
            else:
                wait_s, told = _WAIT_S[0], ""

    async def drain(self) -> None:
        """Publish what still waits, once, after what is under way.

        Raises:
            MeshError: The broker is away, or has no room.
        """
        async with self._publishing:
            pass
        while self._waiting:
            await self._publish_some()

    async def _publish_some(self) -> None:
        async with self._publishing:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            if not self._waiting:
                self._came = anyio.Event()
            try:
                await self._publish(batch)
            except _PASSING:
                self._put_back(batch)
                raise
            except MeshError:
                await self._publish_each(batch)

    async def _publish_each(self, batch: Sequence[Message]) -> None:
        """One that is refused keeps no other out, and is told of here: nobody waits for it any more."""
        for place, message in enumerate(batch):
            try:
                await self._publish([message])
            except _PASSING:
                self._put_back(batch[place:])
                raise
            except MeshError as error:
                self._metrics.dropped()
                event = message.event
                log.error("offer_refused", topic=event.topic, event_id=event.id, reason=error.detail)

    def _put_back(self, batch: Sequence[Message]) -> None:
        # In front of what came meanwhile; the oldest go when that is too many.
        over = max(0, len(batch) + len(self._waiting) - self._size)
        for _ in range(over):
            self._metrics.dropped()
        self._waiting.extendleft(reversed(batch[over:]))
        if self._waiting:
            self._came.set()
