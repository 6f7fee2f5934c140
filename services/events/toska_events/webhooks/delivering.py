"""The one events service that delivers to webhooks: whoever holds a lock in the registry, while there are any.

    idle ──somebody subscribes──▶ waiting for the lock ──▶ delivering ──the last one is unsubscribed──▶ idle
      ▲                                                     │
      └────────────── the lock is lost, the registry is away ┘

Two that deliver for a moment, as one that was paused and its successor, share each webhook's group: no event is lost by
it, and no more of them come twice than of any group.
"""

import contextlib
from collections.abc import Mapping
from datetime import timedelta

import anyio
import structlog
from anyio.abc import TaskGroup
from prometheus_client import CollectorRegistry, Counter
from toska_common.clients.consul import ConsulClient
from toska_common.clients.consul_lock import Lock
from toska_common.errors import Conflict, MeshError, NotFound
from toska_common.events.transport import Delivery

from toska_events.parts import Parts
from toska_events.streaming.settling import try_again
from toska_events.webhooks.book import GROUP_PREFIX, UnknownWebhook, WebhookBook, WebhookRecord
from toska_events.webhooks.grounds import forbidden_ground
from toska_events.webhooks.sending import GONE, Sender, Target, open_sender

log = structlog.get_logger(__name__)

LOCK = "toska/events/webhooks-leader"
LOCK_TTL = timedelta(seconds=10)
RETRY_S = 1.0
LOOK_AGAIN = timedelta(seconds=30)
"""How old the mesh's own addresses may be that webhooks are kept from."""
_TIDY_EVERY_S, _TIDY_TRIES = 0.2, 50
"""How a group is waited for whose member is leaving."""


class WebhookMetrics:
    """What became of deliveries."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.deliveries = Counter(
            "toska_events_webhook_deliveries", "Events sent to webhooks, by what became of them", ("outcome",),
            registry=registry,
        )  # fmt: skip


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
        with scope:
            while True:
                try:
                    target = Target(record.url, self._book.secret_of(record), record.timeout.total_seconds())
                    await self._consume(record, sender, target)
                except* MeshError as errors:
                    log.warning("webhook_interrupted", webhook=record.id, reason=_detail(errors))
                await anyio.sleep(RETRY_S)

    async def _consume(self, record: WebhookRecord, sender: Sender, target: Target) -> None:
        subscription = record.subscription
        async with (
            self._parts.get_transport().subscribe(subscription) as consumer,
            anyio.create_task_group() as group,
        ):
            async for delivery in consumer:  # bounded by the subscription's prefetch
                if subscription.wants(delivery.event):
                    group.start_soon(self._deliver, record, sender, target, delivery)
                else:
                    await delivery.ack()

    async def _deliver(self, record: WebhookRecord, sender: Sender, target: Target, delivery: Delivery) -> None:
        answer = await sender.send(delivery.event, target)
        if isinstance(answer, int) and 200 <= answer < 300:
            self._count("taken")
            await delivery.ack()
        elif answer == GONE:
            self._count("gone")
            log.info("webhook_gone", webhook=record.id)
            await delivery.ack()
            with contextlib.suppress(UnknownWebhook):  # by another of its events, or by a person
                await self._book.delete(record.id)
        else:
            self._count("refused")
            reason = f"the webhook answered {answer}" if isinstance(answer, int) else answer
            await try_again(delivery, record.retrying.retrying, reason)

    def _count(self, outcome: str) -> None:
        self._metrics.deliveries.labels(outcome).inc()


def _detail(errors: ExceptionGroup[MeshError]) -> str:
    return "; ".join(str(error) for error in errors.exceptions)
