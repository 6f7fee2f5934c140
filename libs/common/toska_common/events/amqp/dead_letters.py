"""Dead letters of groups: a queue for each, read without taking anything out of it, driven again or purged one by one.

Whoever looks takes all of a queue's letters in hand and gives back those that stay, under a lock, since a second one
would find the queue empty meanwhile. Letters that RabbitMQ buried itself say so in `x-death`.
"""

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple, cast

import anyio
from aiormq.abc import AbstractChannel, DeliveredMessage

from toska_common.errors import InvalidInput
from toska_common.events.amqp.envelope import (
    ATTEMPT,
    DEATHS,
    DIED,
    ID,
    REASON,
    TOPIC,
    BadEnvelope,
    milliseconds,
    moment,
    number,
    unreadable,
    unseal,
)
from toska_common.events.amqp.errors import NoQueue, asked
from toska_common.events.amqp.facts import GroupFact
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.locks import Locks
from toska_common.events.amqp.names import DELIVERY_LIMIT
from toska_common.events.amqp.posting import Letter, Postman
from toska_common.events.amqp.reading import content_type_of
from toska_common.events.amqp.settling import own_headers
from toska_common.events.amqp.streams import headers_of
from toska_common.events.amqp.topology import Topology
from toska_common.events.cloudevents import from_structured
from toska_common.events.transport import DeadLetter

_AT_ONCE = 2000


class Buried(NamedTuple):
    """A message in a queue of dead letters."""

    letter: DeadLetter
    tag: int
    message: DeliveredMessage


class DeadLetters:
    """The dead letters of a namespace's groups."""

    def __init__(
        self, link: Link, locks: Locks, topology: Topology, postman: Postman, now: Callable[[], datetime]
    ) -> None:
        self._link = link
        self._locks = locks
        self._names = topology.names
        self._postman = postman
        self._now = now

    async def listed(self, group: str) -> list[DeadLetter]:
        """All of a group, by id."""
        async with self._in_hand(group) as (_, buried):
            return sorted((one.letter for one in buried), key=lambda letter: letter.id)

    async def redrive(self, fact: GroupFact, ids: set[str]) -> int:
        """Give some to their group again, as if they were new; returns how many there were."""
        driven = 0
        async with self._in_hand(fact.name) as (channel, buried):
            for one in buried:
                if one.letter.id in ids:
                    await self._postman.post(self._anew(fact, one))
                    await asked("removing a dead letter", channel.basic_ack(one.tag, wait=False))
                    driven += 1
        return driven

    async def purge(self, group: str, ids: set[str]) -> int:
        """Forget some; returns how many there were."""
        purged = 0
        async with self._in_hand(group) as (channel, buried):
            for one in buried:
                if one.letter.id in ids:
                    await asked("removing a dead letter", channel.basic_ack(one.tag, wait=False))
                    purged += 1
        return purged

    @asynccontextmanager
    async def _in_hand(self, group: str) -> AsyncGenerator[tuple[AbstractChannel, list[Buried]]]:
        queue = self._names.dead(group)
        async with self._locks.held(f"dead.{group}"), self._link.channel() as channel:
            try:
                state = await asked(f"looking at {queue}", channel.queue_declare(queue, passive=True, timeout=30))
            except NoQueue:
                yield channel, []
                return
            yield channel, await self._take(channel, group, queue, state.message_count or 0)

    async def _take(self, channel: AbstractChannel, group: str, queue: str, number_: int) -> list[Buried]:
        found: list[Buried] = []
        if not number_:
            return found
        all_here = anyio.Event()

        async def arrive(message: DeliveredMessage) -> None:
            found.append(Buried(self._letter(group, message), message.delivery_tag or 0, message))
            if len(found) >= number_:
                all_here.set()

        # As many as there are, and no limit: what is in hand has to be all, or the rest could not be reached.
        await asked("limiting deliveries", channel.basic_qos(prefetch_count=min(number_, 65535)))
        started = await asked(f"reading {queue}", channel.basic_consume(queue, arrive, timeout=30))
        with anyio.move_on_after(30):
            await all_here.wait()
        await asked("reading no more", channel.basic_cancel(started.consumer_tag or ""))
        return found

    def _letter(self, group: str, message: DeliveredMessage) -> DeadLetter:
        headers = headers_of(message)
        try:
            event = unseal(
                headers,
                content_type_of(message),
                message.body,
                structured=lambda body: from_structured(body, now=self._now()),
            )
        except BadEnvelope:
            event = unreadable(
                str(headers.get(TOPIC) or message.routing_key),
                message.header.properties.message_id or "",
                message.body,
                content_type_of(message),
            )
        died, reason = number(headers, DIED), headers.get(REASON)
        if died is None:
            return _by_rabbitmq(group, message, headers, event)
        return DeadLetter(
            id=str(headers.get(ID)),
            group=group,
            event=event,
            reason=str(reason),
            attempts=number(headers, ATTEMPT) or 0,
            died_at=moment(died),
        )

    def _anew(self, fact: GroupFact, one: Buried) -> Letter:
        headers = own_headers(headers_of(one.message))
        for name in (ATTEMPT, REASON, DIED, ID):
            headers.pop(name, None)
        if fact.lanes:
            exchange, queue = self._names.lanes(fact.name), ""
        else:
            exchange, queue = "", self._names.queue(fact.name)
        return Letter(queue, headers, content_type_of(one.message), one.message.body, exchange)


def _by_rabbitmq(group: str, message: DeliveredMessage, headers: dict[str, Any], event: Any) -> DeadLetter:
    deaths: Any = headers.get(DEATHS)
    death: dict[str, Any] = {}
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        death = cast("dict[str, Any]", deaths[0])
    at = death.get("time")
    died_at = at if isinstance(at, datetime) else event.time
    name = hashlib.sha256(f"{event.source}\0{event.id}\0{death.get('queue')}".encode() + message.body).hexdigest()[:20]
    # How often it was delivered is forgotten by then, but why it came here is not.
    attempts = number(headers, ATTEMPT) or 0
    if death.get("reason") == "delivery_limit":
        attempts += DELIVERY_LIMIT + 1
    return DeadLetter(
        id=f"{group}:{milliseconds(died_at):012x}-{name}",
        group=group,
        event=event,
        reason=f"RabbitMQ gave it up: {death.get('reason', 'unknown')}",
        attempts=attempts,
        died_at=died_at,
    )


def groups_of(ids: Sequence[str]) -> dict[str, set[str]]:
    """Ids of dead letters by their group.

    Raises:
        InvalidInput: One is none.
    """
    found: dict[str, set[str]] = {}
    for name in ids:
        group, colon, _ = name.rpartition(":")
        if not colon or not group:
            reason = "the id of a dead letter is GROUP:NUMBER"
            raise InvalidInput(reason, problems=[{"field": "ids", "reason": f"{reason}; not {name[:80]!r}"}])
        found.setdefault(group, set()).add(name)
    return found
