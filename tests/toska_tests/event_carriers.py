"""What carries events, for tests that every transport has to pass: each test has topics and groups of its own in it."""

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from toska_common.clock import SystemClock, now_utc
from toska_common.credentials import Credentials
from toska_common.events.event import Event
from toska_common.events.opening import open_transport
from toska_common.events.transport import Consumer, Delivery, Message, Stored, Subscription, TopicSettings, Transport
from toska_events.hosting import HostedLog, host_log
from toska_events.settings import Settings

from toska_tests.rabbit_servers import RabbitServer
from toska_tests.waiting import PATIENT_S

Connect = Callable[[], AbstractAsyncContextManager[Transport]]


@dataclass(slots=True)
class Carrier:
    """A real broker, as one test sees it.

    Attributes:
        word: First word of the test's topics, and of its groups.
        connect: Opens a transport that may do everything.
        restart: Stops it in good order, and starts it again.
        keeps_all: Whether every topic can be read again, and not only those that were created for it.
        counts: Whether it knows every figure, and not only those of its queues.
    """

    name: str
    connect: Connect
    restart: Callable[[], Awaitable[None]]
    keeps_all: bool = True
    counts: bool = True
    word: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")

    def topic(self, rest: str) -> str:
        """A topic of this test's own."""
        return f"{self.word}.{rest}"

    def group(self, name: str = "workers") -> str:
        """A group of this test's own."""
        return f"{self.word}-{name}"

    def event(self, rest: str, data: bytes = b"{}", **more: Any) -> Event:
        """An event of this test's own."""
        return Event(topic=self.topic(rest), source="/tests", id=uuid.uuid4().hex, time=now_utc(), data=data, **more)

    async def keep(self, transport: Transport, *topics: str) -> None:
        """Have topics kept, where that has to be said."""
        if not self.keeps_all:
            for rest in topics:
                await transport.administration.put_topic(TopicSettings(self.topic(rest)))


async def publish(transport: Transport, *events: Event) -> None:
    """Publish some events in one call."""
    with anyio.fail_after(PATIENT_S):
        await transport.publish([Message(event) for event in events])


async def take(consumer: Consumer, count: int = 1) -> list[Delivery]:
    """The next deliveries."""
    found: list[Delivery] = []
    with anyio.fail_after(PATIENT_S):
        async for delivery in consumer:
            found.append(delivery)
            if len(found) == count:
                break
    return found


async def take_acked(consumer: Consumer, count: int = 1) -> list[bytes]:
    """The data of the next deliveries, each acked before the next is taken."""
    found: list[bytes] = []
    for _ in range(count):
        (delivery,) = await take(consumer)
        found.append(delivery.event.data)
        await delivery.ack()
    return found


async def read_all(stored: AsyncIterator[Stored]) -> list[Stored]:
    """Everything that is read."""
    with anyio.fail_after(PATIENT_S):
        return [one async for one in stored]


def numbered(carrier: Carrier, rest: str, numbers: Sequence[int], **more: Any) -> list[Event]:
    """Events whose data are numbers."""
    return [carrier.event(rest, str(number).encode(), **more) for number in numbers]


class LogHost:
    """An embedded log in this process, that can be stopped and started over the same folder."""

    def __init__(self, settings: Settings, tasks: TaskGroup) -> None:
        self.settings = settings
        self.crashes: list[Exception] = []
        self._tasks = tasks
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._hosted: HostedLog | None = None

    @property
    def credentials(self) -> Credentials:
        """Tokens that it takes."""
        return self.settings.credentials()

    @property
    def hosted(self) -> HostedLog:
        """The open log."""
        assert self._hosted is not None, "the log is stopped"
        return self._hosted

    def connect(self, *, token: str = "", service: str = "tests") -> AbstractAsyncContextManager[Transport]:
        """Reach it as any other process would."""
        return open_transport(
            "embedded://", home=self.settings.home, token=token or self.credentials.admin, service=service
        )

    async def start(self) -> None:
        """Open and serve it."""
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        await self._tasks.start(self._run)

    async def stop(self) -> None:
        """Close it in good order."""
        self._scope.cancel()
        await self._ended.wait()

    async def restart(self) -> None:
        """Both."""
        await self.stop()
        await self.start()

    async def _run(self, *, task_status: Any) -> None:
        try:
            with self._scope:
                async with host_log(self.settings, SystemClock(), self.crashes.append) as self._hosted:
                    task_status.started()
                    await anyio.sleep_forever()
        finally:
            self._hosted = None
            self._ended.set()


@asynccontextmanager
async def log_host(home: Path, **settings: Any) -> AsyncGenerator[LogHost]:
    """An embedded log in `home`, open and served."""
    async with anyio.create_task_group() as tasks:
        host = LogHost(Settings(home=home, **settings), tasks)
        await host.start()
        try:
            yield host
        finally:
            with anyio.CancelScope(shield=True):
                await host.stop()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def embedded_carrier(home: Path) -> AsyncGenerator[Carrier]:
    """The embedded log."""
    async with log_host(home) as host:
        yield Carrier("embedded", host.connect, host.restart)


def rabbit_carrier(server: RabbitServer) -> Carrier:
    """RabbitMQ, in one namespace for all tests."""
    return Carrier(
        "rabbitmq", lambda: open_transport(server.url, home=Path()), server.restart_application, counts=False
    )


def wanting(carrier: Carrier, *rest: str, group: str | None = "workers", **more: object) -> Subscription:
    """A subscription of this test's own to topics and groups of its own."""
    patterns = tuple(carrier.topic(one) for one in rest or ("#",))
    return Subscription(patterns, group=None if group is None else carrier.group(group), **more)  # pyright: ignore[reportArgumentType]
