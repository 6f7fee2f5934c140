"""What operators ask of RabbitMQ. Figures that it does not give are `None`, and never guessed."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import anyio

from toska_common.events.amqp.catalog import Catalog
from toska_common.events.amqp.dead_letters import DeadLetters, groups_of
from toska_common.events.amqp.envelope import milliseconds
from toska_common.events.amqp.errors import Gone
from toska_common.events.amqp.facts import GroupFact, TopicFact
from toska_common.events.amqp.groups import Groups
from toska_common.events.amqp.link import Link
from toska_common.events.amqp.management import Management
from toska_common.events.amqp.options import AmqpOptions
from toska_common.events.errors import EventsUnavailable, UnknownDeadLetter, UnknownTopic
from toska_common.events.topics import check_topic
from toska_common.events.transport import DeadLetter, GroupState, Start, TopicSettings, TopicState

_CONNECTED_S, _ANSWERED_S = 5.0, 60.0
"""Each queue is asked for on its own, and many groups have thousands; what moves events takes as long as it takes."""


class AmqpAdministration:
    """Topics, groups and dead letters of a namespace."""

    def __init__(
        self,
        options: AmqpOptions,
        link: Link,
        catalog: Catalog,
        groups: Groups,
        dead_letters: DeadLetters,
        now: Callable[[], datetime],
    ) -> None:
        self._link = link
        self._catalog = catalog
        self._groups = groups
        self._dead_letters = dead_letters
        self._management = Management(options) if options.management else None
        self._now = now

    async def topics(self) -> list[TopicState]:
        """By name, without figures: RabbitMQ counts by queue, and no queue is a topic's."""
        async with self._answering():
            facts = await self._catalog.current()
        return [
            TopicState(
                settings=fact.settings,
                events=None,
                bytes=None,
                published=None,
                first_offset=None,
                last_offset=None,
                last_at=None,
            )
            for _, fact in sorted(facts.topics.items())
            if fact.here
        ]

    async def put_topic(self, settings: TopicSettings) -> None:
        """Create a topic, or set it anew. Age and replay are kept by readers; the log as a whole has its own bounds."""
        check_topic(settings.name, field="name")
        async with self._answering():
            facts = await self._catalog.current()
            before = facts.topics.get(settings.name)
            await self._catalog.tell(TopicFact(settings, 0 if before is None else before.deleted_at))

    async def delete_topic(self, name: str) -> None:
        """Forget a topic: what was published so far is not read again, and given to nobody.

        Raises:
            UnknownTopic: There is none.
        """
        async with self._answering():
            facts = await self._catalog.current()
            fact = facts.topic(name)
            if fact is None:
                raise UnknownTopic(f"there is no topic {name!r}")
            gone = TopicFact(TopicSettings(name), deleted_at=milliseconds(self._now()), here=False)
            await self._catalog.tell(gone)

    async def groups(self) -> list[GroupState]:
        """By name."""
        async with self._answering():
            facts = await self._catalog.current()
            return [await self._state(fact) for _, fact in sorted(facts.groups.items()) if fact.here]

    async def delete_group(self, name: str) -> None:
        """Forget a group, and what it has yet to be given.

        Raises:
            UnknownGroup: There is none.
            Conflict: It has members.
        """
        async with self._answering(within_s=None):
            await self._groups.delete(name)

    async def seek(self, group: str, start: Start) -> None:
        """Give a group everything from `start` on.

        Raises:
            UnknownGroup: There is none.
            Conflict: It has members.
        """
        async with self._answering(within_s=None):
            await self._groups.seek(group, start)

    async def dead_letters(self, group: str | None = None, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """By id, those after `after`."""
        async with self._answering():
            names = sorted(name for name, fact in self._catalog.facts.groups.items() if fact.here)
            if group is not None:
                names = [self._groups.get(group).name]
            found: list[DeadLetter] = []
            for name in names:
                found += [letter for letter in await self._dead_letters.listed(name) if letter.id > after]
        return sorted(found, key=lambda letter: letter.id)[: max(0, limit)]

    async def dead_letter(self, id: str) -> DeadLetter:  # noqa: A002 - what it is called
        """One of them.

        Raises:
            UnknownDeadLetter: There is none.
        """
        group = id.rpartition(":")[0]
        if group and self._catalog.facts.group(group) is not None:
            async with self._answering():
                for letter in await self._dead_letters.listed(group):
                    if letter.id == id:
                        return letter
        raise UnknownDeadLetter(f"there is no dead letter {id[:120]!r}")

    async def redrive(self, ids: Sequence[str]) -> int:
        """Give them to their groups again; those of groups that are gone stay."""
        async with self._answering(within_s=None):
            driven = 0
            for name, some in groups_of(ids).items():
                fact = self._catalog.facts.group(name)
                if fact is not None:
                    driven += await self._dead_letters.redrive(fact, some)
            return driven

    async def purge(self, ids: Sequence[str]) -> int:
        """Forget them."""
        async with self._answering(within_s=None):
            return sum([await self._dead_letters.purge(name, some) for name, some in groups_of(ids).items()])

    async def _state(self, fact: GroupFact) -> GroupState:
        groups = self._groups
        work = await groups.counts(groups.queues(fact))
        waiting = await groups.counts(groups.retries(fact))
        dead = await groups.counts([groups.dead(fact)])
        figures = None if self._management is None else await self._management.figures(groups.queues(fact))
        return GroupState(
            name=fact.name,
            patterns=fact.patterns,
            members=await groups.members(fact),
            lag=sum(ready for ready, _ in work.values()),
            unsettled=None if figures is None else figures.unsettled,
            delayed=sum(ready for ready, _ in waiting.values()),
            dead=sum(ready for ready, _ in dead.values()),
            delivered=None if figures is None else figures.delivered,
            acked=None if figures is None else figures.acked,
            oldest_at=None,
        )

    @asynccontextmanager
    async def _answering(self, within_s: float | None = _ANSWERED_S) -> AsyncGenerator[None]:
        try:
            with anyio.fail_after(_CONNECTED_S):
                await self._link.connected()
        except TimeoutError as error:
            reason = "it is away" if self._link.problem is None else self._link.problem.detail
            raise EventsUnavailable(f"RabbitMQ did not answer: {reason}") from error
        try:
            with anyio.fail_after(within_s):
                yield
        except TimeoutError as error:
            raise EventsUnavailable(f"RabbitMQ did not answer within {within_s:g} s") from error
        except Gone as error:
            raise EventsUnavailable(f"RabbitMQ did not answer: {error}") from error
