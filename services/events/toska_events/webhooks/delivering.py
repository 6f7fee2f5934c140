"""The one events service that delivers to webhooks: whoever holds a lock in the registry, while there are any.

    idle ──somebody subscribes──▶ waiting for the lock ──▶ delivering ──the last one is unsubscribed──▶ idle
      ▲                                                     │
      └────────────── the lock is lost, the registry is away ┘

Two that deliver for a moment, as one that was paused and its successor, share each webhook's group: no event is lost by
it, and no more of them come twice than of any group.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial

import anyio
import structlog
from anyio.abc import TaskGroup
from prometheus_client import CollectorRegistry, Counter
from toska_common.clients.consul import ConsulClient
from toska_common.clients.consul_lock import Lock
from toska_common.errors import Conflict, MeshError, NotFound
from toska_common.events.event import Event
from toska_common.events.transport import Delivery

from toska_events.parts import Parts
from toska_events.streaming.settling import try_again
from toska_events.webhooks.book import GROUP_PREFIX, UnknownWebhook, WebhookBook, WebhookRecord
from toska_events.webhooks.grounds import forbidden_ground
from toska_events.webhooks.pacing import Pace
from toska_events.webhooks.sending import GONE, Outcome, Sender, Target, open_sender

log = structlog.get_logger(__name__)

LOCK = "toska/events/webhooks-leader"
LOCK_TTL = timedelta(seconds=10)
RETRY_S = 1.0
LOOK_AGAIN = timedelta(seconds=30)
"""How old the mesh's own addresses may be that webhooks are kept from."""
_TIDY_EVERY_S, _TIDY_TRIES = 0.2, 50
"""How a group is waited for whose member is leaving."""


Send = Callable[[Event], Awaitable[Outcome]]


class WebhookMetrics:
    """What became of deliveries."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.deliveries = Counter(
            "toska_events_webhook_deliveries", "Events sent to webhooks, by what became of them", ("outcome",),
            registry=registry,
        )  # fmt: skip


class Gate:
    """Where the requests of one webhook wait for their turns, in the order in which they came."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._turn = anyio.Lock()

    async def pass_(self) -> None:
        """Wait until a request may go."""
        async with self._turn:
            while wait_s := self._pace.wait_s(anyio.current_time()):  # noqa: ASYNC110 - an answer may prolong it meanwhile
                await anyio.sleep(wait_s)
            self._pace.take(anyio.current_time())

    def hold(self, seconds: float) -> None:
        """Let nobody pass for so long."""
        self._pace.hold(seconds, anyio.current_time())


class Deliverer:
    """Delivers while it may."""

    def __init__(self, parts: Parts, consul: ConsulClient, book: WebhookBook, metrics: WebhookMetrics) -> None:
        self._parts = parts
        self._consul = consul
        self._book = book
        self._metrics = metrics

    async def run(self) -> None:
        """Deliver whenever there is something to deliver to and the lock is to be had, for ever."""
        while True:
            try:
                await self._until_some()
                name = f"{self._parts.settings.host}:{self._parts.settings.port}".encode()
                hold = Lock.hold(self._consul, LOCK, value=name, ttl=LOCK_TTL, lock_delay=timedelta())
                async with hold, open_sender(self._parts.clock) as sender:
                    await self._lead(sender)
            except MeshError as error:
                log.warning("webhooks_interrupted", reason=error.detail)
            await anyio.sleep(RETRY_S)

    async def _until_some(self) -> None:
        index, found = 0, list[WebhookRecord]()
        while not found:
            found, index = await self._book.wait(index, timedelta(minutes=5))

    async def _lead(self, sender: Sender) -> None:
        running: dict[str, tuple[WebhookRecord, anyio.CancelScope]] = {}
        index, failure = 0, None
        log.info("webhooks_delivered_here")
        async with anyio.create_task_group() as group:
            try:
                while True:
                    records, index = await self._book.wait(index, LOOK_AGAIN)
                    sender.rules = await forbidden_ground(self._consul, self._parts.settings)
                    self._reconcile({record.id: record for record in records}, running, group, sender)
                    if not records:
                        break
                    group.start_soon(self._forget_groups)
            except MeshError as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        await self._forget_groups()

    def _reconcile(
        self,
        records: Mapping[str, WebhookRecord],
        running: dict[str, tuple[WebhookRecord, anyio.CancelScope]],
        group: TaskGroup,
        sender: Sender,
    ) -> None:
        for id_, (record, scope) in list(running.items()):
            if records.get(id_) != record:
                scope.cancel()
                del running[id_]
        for id_, record in records.items():
            if id_ not in running:
                scope = anyio.CancelScope()
                running[id_] = (record, scope)
                group.start_soon(self._serve, record, sender, scope)

    async def _forget_groups(self) -> None:
        """Of webhooks that are no more, once their members have left."""
        for _ in range(_TIDY_TRIES):
            try:
                if await self._forget_idle_groups():
                    return
            except MeshError as error:
                log.info("webhook_groups_kept", reason=error.detail)
                return
            await anyio.sleep(_TIDY_EVERY_S)

    async def _forget_idle_groups(self) -> bool:
        administration = self._parts.get_transport().administration
        groups = [state.name for state in await administration.groups()]
        # Looked up after the groups: a webhook is in the book before its group is made.
        wanted = {record.group for record in await self._book.list_all()}
        left = [name for name in groups if name.startswith(GROUP_PREFIX) and name not in wanted]
        for name in left:
            with contextlib.suppress(Conflict, NotFound):
                await administration.delete_group(name)
        return not left

    async def _serve(self, record: WebhookRecord, sender: Sender, scope: anyio.CancelScope) -> None:
        gate = Gate(Pace(record.rate))  # outlives a connection that is lost
        with scope:
            while True:
                try:
                    timeout_s = record.timeout.total_seconds()
                    target = Target(record.url, self._book.secret_of(record), timeout_s, record.origin)
                    await self._consume(record, gate, partial(sender.send, target=target))
                except* MeshError as errors:
                    log.warning("webhook_interrupted", webhook=record.id, reason=_detail(errors))
                await anyio.sleep(RETRY_S)

    async def _consume(self, record: WebhookRecord, gate: Gate, send: Send) -> None:
        subscription = record.subscription
        async with (
            self._parts.get_transport().subscribe(subscription) as consumer,
            anyio.create_task_group() as group,
        ):
            async for delivery in consumer:  # bounded by the subscription's prefetch
                if subscription.wants(delivery.event):
                    group.start_soon(self._deliver, record, gate, send, delivery)
                else:
                    await delivery.ack()

    async def _deliver(self, record: WebhookRecord, gate: Gate, send: Send, delivery: Delivery) -> None:
        await gate.pass_()
        outcome = await send(delivery.event)
        if outcome.is_taken:
            self._count("taken")
            await delivery.ack()
        elif outcome.status == GONE:
            self._count("gone")
            log.info("webhook_gone", webhook=record.id)
            await delivery.ack()
            with contextlib.suppress(UnknownWebhook):  # by another of its events, or by a person
                await self._book.delete(record.id)
        else:
            self._count("refused")
            if outcome.wait_s:
                gate.hold(outcome.wait_s)
                log.info("webhook_held", webhook=record.id, status=outcome.status, seconds=round(outcome.wait_s))
            await try_again(delivery, record.retrying.retrying, outcome.reason)

    def _count(self, outcome: str) -> None:
        self._metrics.deliveries.labels(outcome).inc()


def _detail(errors: ExceptionGroup[MeshError]) -> str:
    return "; ".join(str(error) for error in errors.exceptions)
