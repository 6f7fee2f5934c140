"""Events beside state: committed together, published in order, at least once; and effects that happen once."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from toska_common.errors import MeshError
from toska_common.events import (
    EventBus,
    EventPayload,
    EventsUnavailable,
    EventTooLarge,
    Incoming,
    Message,
    SchemaRefused,
)
from toska_common.events.errors import LogFull
from toska_common.events.outbox import INBOX, METADATA, OUTBOX, RELAYS, Inbox, Outbox, Relay
from toska_common.events.transport import BEGINNING
from toska_tests.event_carriers import LogHost
from toska_tests.postgres_servers import PostgresServer
from toska_tests.waiting import PATIENT_S, wait_until

STATE = sa.Table("accounts", sa.MetaData(), sa.Column("id", sa.String, primary_key=True), sa.Column("n", sa.Integer))


class Moved(EventPayload, topic="bank.money.moved"):
    n: int


@dataclass(slots=True)
class Bank:
    """A service with state of its own, and a bus."""

    engine: AsyncEngine
    bus: EventBus
    outbox: Outbox
    log: LogHost

    def relay(self, **options: Any) -> Relay:
        return Relay(self.outbox, self.bus, self.engine.begin, **options)

    async def move(self, n: int, key: str | None = "a") -> None:
        async with self.engine.connect() as session, self.outbox.transaction(session) as tx:
            await session.execute(sa.insert(STATE).values(id=f"{key}-{n}", n=n))
            tx.publish(Moved(n=n), key=key)

    async def count(self, table: sa.Table) -> int:
        async with self.engine.begin() as session:
            return (await session.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()

    async def published(self) -> list[int]:
        async with self.log.connect() as transport:
            return [Moved.model_validate_json(item.event.data).n async for item in transport.read(["#"], BEGINNING)]


@pytest.fixture(params=["sqlite", "postgresql"])
async def engine(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> AsyncGenerator[AsyncEngine]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'bank.sqlite'}"
    if request.param == "postgresql":
        url = (await postgres.make_database()).replace("postgresql://", "postgresql+asyncpg://")
    made = create_async_engine(url)
    async with made.begin() as session:
        await session.run_sync(METADATA.create_all)
        await session.run_sync(STATE.metadata.create_all)
    yield made
    await made.dispose()


@pytest.fixture
async def bank(engine: AsyncEngine, event_log: LogHost) -> AsyncGenerator[Bank]:
    bus = EventBus("bank", lambda: event_log.connect(service="bank"), publishes=[Moved], max_bytes=10_000)
    async with bus.open():
        yield Bank(engine, bus, Outbox(bus), event_log)


@asynccontextmanager
async def running(*relays: Relay) -> AsyncGenerator[None]:
    async with anyio.create_task_group() as group:
        for relay in relays:
            group.start_soon(relay.run)
        yield
        group.cancel_scope.cancel()


async def test_state_and_event_are_committed_together_and_published(bank: Bank) -> None:
    relay = bank.relay()
    async with running(relay):
        await bank.move(1)

        async def is_published() -> bool:
            return await relay.pending() == 0

        await wait_until(is_published, within=PATIENT_S)
    assert (await bank.count(STATE), await bank.published()) == (1, [1])


async def test_a_transaction_that_fails_leaves_neither(bank: Bank) -> None:
    with pytest.raises(RuntimeError):
        async with bank.engine.connect() as session, bank.outbox.transaction(session) as tx:
            await session.execute(sa.insert(STATE).values(id="a", n=1))
            tx.publish(Moved(n=1))
            raise RuntimeError
    assert (await bank.count(STATE), await bank.count(OUTBOX)) == (0, 0)


async def test_a_session_of_the_orm_and_a_transaction_under_way_are_joined(bank: Bank) -> None:
    async with AsyncSession(bank.engine) as session, bank.outbox.transaction(session) as tx:
        tx.publish(Moved(n=1))
    async with bank.engine.connect() as connection, connection.begin() as outer:
        async with bank.outbox.transaction(connection) as tx:
            tx.publish(Moved(n=2))
        await outer.rollback()
    assert await bank.relay().step() == 1
    assert await bank.published() == [1]


async def test_an_event_over_the_limit_is_refused_with_the_transaction(bank: Bank) -> None:
    with pytest.raises(EventTooLarge):
        async with bank.engine.connect() as session, bank.outbox.transaction(session) as tx:
            await session.execute(sa.insert(STATE).values(id="a", n=1))
            tx.publish(bank.bus.event("bank.money.moved", "x" * 20_000))
    assert await bank.count(STATE) == 0


async def test_a_relay_that_dies_between_publishing_and_deleting_doubles_and_loses_nothing(bank: Bank) -> None:
    for number in range(5):
        await bank.move(number)
    dying = bank.relay()

    async def die(numbers: Any) -> None:
        raise ConnectionAbortedError("killed between two steps")

    dying._forget = die  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue] - the step that it dies before
    with pytest.raises(ConnectionAbortedError):
        await dying.step()
    assert await bank.count(OUTBOX) == 5
    async with bank.engine.begin() as session:
        await session.execute(sa.delete(RELAYS))  # its lease has lapsed
    assert await bank.relay().step() == 5
    assert (await bank.count(OUTBOX), set(await bank.published())) == (0, set(range(5)))


async def test_events_wait_while_the_broker_is_away(bank: Bank) -> None:
    await bank.log.stop()
    await bank.move(1)
    relay = bank.relay(lease=timedelta(milliseconds=200))
    with pytest.raises(EventsUnavailable):
        await relay.step()
    assert await relay.pending() == 1
    await bank.log.start()
    async with running(relay):

        async def is_empty() -> bool:
            return await relay.pending() == 0

        await wait_until(is_empty, within=PATIENT_S)
    assert await bank.published() == [1]


async def test_one_relay_publishes_at_a_time_and_another_takes_over(bank: Bank) -> None:
    first, second = bank.relay(lease=timedelta(seconds=1)), bank.relay(lease=timedelta(seconds=1))
    await bank.move(1)
    assert (await first.step(), await second.step()) == (1, 0)
    await bank.move(2)

    async def takes_over() -> bool:
        return await second.step() == 1

    await wait_until(takes_over, within=PATIENT_S)
    assert await bank.published() == [1, 2]


async def test_keys_keep_their_order_under_writers_at_once(bank: Bank) -> None:
    async def write(key: str) -> None:
        for number in range(10):
            await bank.move(number, key)

    async def is_empty() -> bool:
        return await bank.count(OUTBOX) == 0

    async with running(bank.relay(batch=7), bank.relay(batch=7)):
        async with anyio.create_task_group() as group:
            for key in "abcd":
                group.start_soon(write, key)
        await wait_until(is_empty, within=PATIENT_S)
    async with bank.log.connect() as transport:
        found = [item.event async for item in transport.read(["#"], BEGINNING)]
    for key in "abcd":
        numbers = [Moved.model_validate_json(event.data).n for event in found if event.key == key]
        assert list(dict.fromkeys(numbers)) == list(range(10))


async def test_a_relay_that_is_stopped_at_any_moment_leaves_nothing_behind(bank: Bank) -> None:
    # The event loop of a process cannot end while one of its tasks waits for a connection that is gone.
    for turns in range(60):
        relay = bank.relay()
        async with running(relay):
            bank.outbox.wake()
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
    await wait_until(lambda: not [task for task in asyncio.all_tasks() if "terminate" in repr(task.get_coro())])


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # SQLite has one writer, and commits in order
async def test_an_event_committed_late_with_a_small_number_is_not_skipped(bank: Bank) -> None:
    async with bank.engine.connect() as slow:
        await slow.begin()
        async with bank.outbox.transaction(slow) as tx:
            tx.publish(Moved(n=1), key="slow")
        await bank.move(2, "quick")
        assert await bank.relay().step() == 1
        await slow.commit()
    async with bank.engine.begin() as session:
        await session.execute(sa.delete(RELAYS))
    assert await bank.relay().step() == 1
    assert await bank.published() == [2, 1]


async def test_what_the_broker_refuses_holds_back_its_own_key_alone(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Message(bank.bus.event("bank.money.moved", {"n": 1, "text": "x" * 9_000}, key="a"))
    async with bank.engine.begin() as session, bank.outbox.transaction(session) as tx:
        tx.publish(large.event)
    await bank.move(2, "a")
    await bank.move(3, "b")
    narrow = EventBus("bank", lambda: bank.log.connect(service="bank"), publishes=[Moved], max_bytes=1000)
    async with narrow.open():
        relay = Relay(Outbox(narrow), narrow, bank.engine.begin)
        assert await relay.step() == 2
        assert await relay.step() == 0
    assert await bank.published() == [3]
    async with bank.engine.begin() as session:
        kept = (await session.execute(sa.select(OUTBOX.c.key, OUTBOX.c.refused).order_by(OUTBOX.c.seq))).all()
    assert [key for key, _ in kept] == ["a", "a"]
    assert "1000 are allowed" in kept[0][1]


async def test_what_another_process_commits_is_published_before_the_interval_is_over(bank: Bank) -> None:
    hour = timedelta(hours=1)
    other = Bank(bank.engine, bank.bus, Outbox(bank.bus), bank.log)
    first = bank.relay(interval=hour, lease=hour)
    await bank.move(1)
    assert await first.step() == 1  # and so it is its turn, for an hour

    async def is_empty() -> bool:
        return await bank.count(OUTBOX) == 0

    async with running(first, other.relay(interval=hour)):
        for number in range(2, 5):
            await other.move(number)
            await wait_until(is_empty, within=PATIENT_S)
    assert await bank.published() == [1, 2, 3, 4]


async def test_a_relay_that_has_nothing_to_do_writes_nothing(bank: Bank) -> None:
    looked = 0

    @asynccontextmanager
    async def transactions() -> AsyncGenerator[AsyncConnection]:
        nonlocal looked
        async with bank.engine.begin() as session:
            yield session
        looked += 1

    relay = Relay(bank.outbox, bank.bus, transactions, interval=timedelta(milliseconds=1))
    async with running(relay):
        await wait_until(lambda: looked > 5, within=PATIENT_S)
    assert await bank.count(RELAYS) == 0


async def test_a_relay_that_is_stopped_leaves_nothing_that_would_be_published_again(bank: Bank) -> None:
    await bank.move(1)
    relay = bank.relay()
    async with running(relay):

        async def is_published() -> bool:
            return await bank.published() == [1]

        await wait_until(is_published, within=PATIENT_S)
    assert await bank.count(OUTBOX) == 0


async def test_an_effect_happens_once_however_often_its_event_comes(bank: Bank) -> None:
    inbox, calls = Inbox("billing"), list[int]()

    @inbox.once(bank.engine.begin)
    async def charge(incoming: Incoming[Moved], session: AsyncConnection) -> None:
        calls.append(incoming.data.n)
        await session.execute(sa.insert(STATE).values(id=f"charge-{len(calls)}", n=incoming.data.n))
        if len(calls) == 1:
            raise RuntimeError("killed between effect and commit")

    event = bank.bus.event(Moved(n=7))
    with pytest.raises(RuntimeError):
        await charge(Incoming(Moved(n=7), event))
    for _ in range(3):
        await charge(Incoming(Moved(n=7), event))
    assert (len(calls), await bank.count(STATE), await bank.count(INBOX)) == (2, 1, 1)


async def test_two_at_once_have_one_effect(bank: Bank) -> None:
    inbox = Inbox("billing")

    @inbox.once(bank.engine.begin)
    async def charge(incoming: Incoming[Moved], session: AsyncConnection) -> None:
        await session.execute(sa.insert(STATE).values(id=incoming.event.id + str(id(session)), n=1))

    event = bank.bus.event(Moved(n=7))
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(charge, Incoming(Moved(n=7), event))
    assert await bank.count(STATE) == 1


async def test_consumers_remember_for_themselves_and_not_for_ever(bank: Bank) -> None:
    event = bank.bus.event(Moved(n=7))
    alike = [bank.bus.event("a.b", attributes={}), event]
    async with bank.engine.begin() as session:
        assert await Inbox("one").claim(session, event)
        assert await Inbox("two").claim(session, event)
        assert not await Inbox("one").claim(session, event)
        assert await Inbox("one").claim(session, alike[0])
    brief = Inbox("one", kept=timedelta(0))
    async with bank.engine.begin() as session:
        assert await brief.forget_old(session) == 2
    assert await bank.count(INBOX) == 1


async def test_a_migration_makes_and_drops_the_tables(bank: Bank) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from toska_common.events.outbox import tables

    def migrate(connection: sa.Connection) -> list[set[str]]:
        op = Operations(MigrationContext.configure(connection))
        found = list[set[str]]()
        for step in (tables.drop_outbox, tables.drop_inbox, tables.create_outbox, tables.create_inbox):
            step(op)
            found.append({name for name in sa.inspect(connection).get_table_names() if name.startswith("toska_")})
        return found

    async with bank.engine.begin() as session:
        found = await session.run_sync(migrate)
    outbox = {"toska_outbox", "toska_relays"}
    assert found == [{"toska_inbox"}, set(), outbox, {*outbox, "toska_inbox"}]


async def test_what_is_no_event_holds_back_its_own_key_alone(bank: Bank) -> None:
    wrong = replace(bank.bus.event(Moved(n=1), key="a"), topic="no topic")
    async with bank.engine.begin() as session, bank.outbox.transaction(session) as tx:
        tx.publish(wrong)
    await bank.move(2, "a")
    await bank.move(3, "b")
    async with running(bank.relay()):

        async def is_published() -> bool:
            return await bank.published() == [3]

        await wait_until(is_published, within=PATIENT_S)
    async with bank.engine.begin() as session:
        kept = (await session.execute(sa.select(OUTBOX.c.refused).order_by(OUTBOX.c.seq))).scalars().all()
    assert "type: a topic is words" in kept[0]
    assert kept[1] is None


async def test_events_wait_while_there_is_no_room_and_while_the_schema_is_refused(bank: Bank) -> None:
    passing: list[MeshError] = [LogFull("no room"), SchemaRefused("version 2 is not taken")]

    async def judge(types: Any) -> bool:
        if passing:
            raise passing.pop(0)
        return True

    bus = EventBus("bank", lambda: bank.log.connect(service="bank"), publishes=[Moved], before_publishing=judge)
    await bank.move(1)
    async with bus.open(), running(Relay(Outbox(bus), bus, bank.engine.begin)):

        async def is_published() -> bool:
            return await bank.published() == [1]

        await wait_until(is_published, within=PATIENT_S)
    assert passing == []
