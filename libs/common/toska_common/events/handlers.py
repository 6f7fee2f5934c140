"""What a subscription calls, and what it is handed."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar

from toska_common.events.event import Event
from toska_common.events.payload import EventPayload
from toska_common.events.transport import Subscription

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Incoming(Generic[T_co]):
    """An event in the hands of a handler.

    Attributes:
        data: The payload: of its topic's declared type, else plain JSON, else bytes.
        event: All that was said of it.
        attempt: How often this group was given it, this time included; from 1.
        offset: Its place in the transport's log, where there is one.
    """

    data: T_co
    event: Event
    attempt: int = 1
    offset: int | None = None


Answer = EventPayload | None
Handler = Callable[[Incoming[Any]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A handler, and how it wants to be called.

    Attributes:
        name: For logs and metrics.
        concurrency: Most events in its hands at once, in this process.
        timeout: An event that takes longer is tried again.
    """

    handler: Handler
    subscription: Subscription
    name: str
    concurrency: int = 16
    timeout: timedelta = timedelta(seconds=30)
    types: tuple[type[EventPayload], ...] = field(default=())

    def __post_init__(self) -> None:
        if not inspect.iscoroutinefunction(inspect.unwrap(self.handler)):
            raise TypeError(f"{self.name}: a handler of events is an async function")
        if self.concurrency < 1 or self.timeout <= timedelta(0):
            raise ValueError(f"{self.name}: concurrency and timeout are above 0")
