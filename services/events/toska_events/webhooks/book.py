"""Webhooks as they are kept: in the registry's keys, one each, so that all events services have the same."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog
from pydantic import Field, ValidationError
from toska_common.clients.consul import ConsulClient
from toska_common.clients.consul_records import KVPair
from toska_common.contracts import Contract
from toska_common.contracts.webhooks import Backoff, NewWebhook, Webhook, WebhookDraft
from toska_common.errors import Conflict, NotFound
from toska_common.events.event import new_id
from toska_common.events.transport import Subscription
from toska_common.units import Duration

from toska_events.webhooks.agreeing import Agreement
from toska_events.webhooks.signing import Safe, new_secret

log = structlog.get_logger(__name__)

PREFIX = "toska/events/webhooks/"
GROUP_PREFIX = "webhook-"
"""How the groups are called that webhooks have for themselves."""
MAX_WEBHOOKS = 1000
IN_FLIGHT = 8
"""Most events that are under way to one webhook."""


class UnknownWebhook(NotFound):
    """Nothing is subscribed under this id."""

    code, title = "unknown-webhook", "Unknown webhook"


class WebhookRecord(Contract):
    """What is stored of one.

    Attributes:
        rate: Most requests a minute.
        origin: The name that the receiver agreed to; empty if it was not asked.
    """

    id: str
    topics: tuple[str, ...]
    url: str
    group: str
    where: Mapping[str, str]
    sealed_secret: str
    retrying: Backoff = Field(default_factory=Backoff)
    timeout: Duration
    rate: int | None = None
    origin: str = ""
    description: str = ""
    created_at: datetime

    @property
    def subscription(self) -> Subscription:
        """What it is given."""
        return Subscription(
            self.topics, group=self.group, where=self.where, prefetch=IN_FLIGHT, retrying=self.retrying.retrying
        )


class WebhookBook:
    """All webhooks of the mesh."""

    def __init__(self, consul: ConsulClient, safe: Safe) -> None:
        self._consul = consul
        self._safe = safe

    async def add(self, draft: WebhookDraft, agreement: Agreement | None, now: datetime) -> NewWebhook:
        """Store a new one, with what its receiver agreed to if it was asked.

        Raises:
            Conflict: There are too many.
        """
        keys, _ = await self._consul.kv_keys(PREFIX)
        if len(keys) >= MAX_WEBHOOKS:
            raise Conflict(f"there are {len(keys)} webhooks already; unsubscribe some")
        id_ = new_id(now)
        secret = new_secret() if draft.secret is None else draft.secret.get_secret_value()
        record = WebhookRecord(
            id=id_,
            topics=draft.topics,
            url=draft.url,
            group=draft.group or f"{GROUP_PREFIX}{id_}",
            where=draft.where,
            sealed_secret=self._safe.seal(secret, id_),
            retrying=draft.retrying,
            timeout=draft.timeout,
            rate=draft.rate if agreement is None else agreement.rate,
            origin="" if agreement is None else agreement.origin,
            description=draft.description,
            created_at=now,
        )
        if not await self._consul.kv_put(PREFIX + id_, record.model_dump_json().encode(), cas=0):
            raise Conflict("the webhook's id is taken; ask again")
        return NewWebhook(**shown(record).model_dump(), secret=secret)

    async def list_all(self) -> list[WebhookRecord]:
        """All, the oldest first."""
        return (await self.wait(0, None))[0]

    async def wait(self, index: int, longest: timedelta | None) -> tuple[list[WebhookRecord], int]:
        """All, once they are no longer those of `index`, and theirs."""
        pairs, index = await self._consul.kv_list(PREFIX, index=index, wait=longest)
        return [record for record in map(_read, pairs) if record is not None], index

    async def get(self, id_: str) -> WebhookRecord:
        """One.

        Raises:
            UnknownWebhook: There is none.
        """
        pair, _ = await self._consul.kv_get(PREFIX + id_)
        record = None if pair is None else _read(pair)
        if record is None:
            raise UnknownWebhook(f"nothing is subscribed under {id_[:50]}", webhook=id_[:50])
        return record

    async def delete(self, id_: str) -> None:
        """Forget one.

        Raises:
            UnknownWebhook: There is none.
        """
        await self.get(id_)
        await self._consul.kv_delete(PREFIX + id_)

    def secret_of(self, record: WebhookRecord) -> str:
        """What signs for it.

        Raises:
            UnreadableSecret: It was sealed under another admin token.
        """
        return self._safe.open(record.sealed_secret, record.id)


def shown(record: WebhookRecord) -> Webhook:
    """The webhook without its secret."""
    return Webhook(
        id=record.id,
        topics=record.topics,
        url=record.url,
        group=record.group,
        where=record.where,
        attempts=record.retrying.attempts,
        first_retry_seconds=record.retrying.first.total_seconds(),
        longest_retry_seconds=record.retrying.longest.total_seconds(),
        timeout_seconds=record.timeout.total_seconds(),
        rate=record.rate,
        agreed=bool(record.origin),
        description=record.description,
        created_at=record.created_at,
    )


def _read(pair: KVPair) -> WebhookRecord | None:
    try:
        return WebhookRecord.model_validate_json(pair.value)
    except ValidationError:
        # One that a person or a later release wrote must not keep the others from theirs.
        log.warning("webhook_unreadable", key=pair.key)
        return None
