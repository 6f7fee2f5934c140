"""Events that must not make their publisher wait: held in memory until the broker takes them, the oldest dropped.

For what is a notification and not the truth; who needs certainty writes the event beside the state (the outbox).
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
import structlog

from toska_common.events.errors import EventsUnavailable
from toska_common.events.metrics import EventMetrics
from toska_common.events.transport import Message

log = structlog.get_logger(__name__)

_BATCH = 256
_WAIT_S = (0.2, 5.0)


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
        """Publish what comes, for ever; a broker that is away is asked again."""
        wait_s = _WAIT_S[0]
        while True:
            await self._came.wait()
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            if not self._waiting:
                self._came = anyio.Event()
            try:
                await self._publish(batch)
            except EventsUnavailable:
                self._put_back(batch)
                await anyio.sleep(wait_s)
                wait_s = min(_WAIT_S[1], wait_s * 2)
            else:
                wait_s = _WAIT_S[0]

    async def drain(self) -> None:
        """Publish what still waits, once.

        Raises:
            EventsUnavailable: The broker is away.
        """
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            await self._publish(batch)

    def _put_back(self, batch: Sequence[Message]) -> None:
        # In front of what came meanwhile; the oldest go when that is too many.
        over = max(0, len(batch) + len(self._waiting) - self._size)
        for _ in range(over):
            self._metrics.dropped()
        self._waiting.extendleft(reversed(batch[over:]))
        if self._waiting:
            self._came.set()
