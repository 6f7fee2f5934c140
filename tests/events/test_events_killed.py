"""Producers, consumers and the broker are killed: no event is lost, none has two effects, and keys keep their order.

With TOSKA_EVENTS_KILLS=1 (`make event-kills`) there are 100,000 events of each kind, and what happens is printed.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
import pytest
from toska_common.credentials import ensure_credentials
from toska_common.events.errors import EventsUnavailable
from toska_common.events.opening import open_transport
from toska_common.events.transport import Subscription
from toska_tests.event_crews import GROUP, TOPIC, Crew, Effects, effects_in, event_crew, has_ended
from toska_tests.killed_logs import killed_log
from toska_tests.postgres_servers import PostgresServer
from toska_tests.rabbit_servers import RabbitServer
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.anyio

LONG = bool(os.environ.get("TOSKA_EVENTS_KILLS"))
EVENTS = 100_000 if LONG else 300
KEYS, LANES, CONSUMERS = 50, 2, 2
AHEAD = EVENTS // 4
DIE_AFTER = (1_000, 10_000) if LONG else (40, 100)
KILL_AFTER = (1, 3_000) if LONG else (80, 160)
BROKER_KILLS = 8 if LONG else 1
LOOK_EVERY_S = 0.5 if LONG else 0.05
WITHIN_S = 3600 if LONG else 120

KillBroker = Callable[[], Awaitable[None]]


class Havoc:
    """Keeps producers and consumers at work, and kills them and the broker.

    Args:
        events: What members are told of the broker: `events`, and `home` and `token` where they need them.
    """

    def __init__(
        self, crew: Crew, effects: Effects, folder: Path, events: dict[str, str], database: str, kill_broker: KillBroker
    ) -> None:
        self._crew, self._effects, self._folder = crew, effects, folder
        self._consuming = {**events, "database": database}
        self._publishing = {**events, "folder": str(folder)}
        self._kill_broker = kill_broker
        self._dice = random.Random(20)
        self._living: dict[str, psutil.Process] = {}
        self._shot: set[int] = set()
        self._handled = folder / "handled"
        self._handled.write_text("0")
        self._count = 0
        self.killed: Counter[str] = Counter()

    def confirmed(self, *lanes: int) -> int:
        """Events that were confirmed, as their producers have written down."""
        files = (self._folder / f"lane-{lane}" for lane in lanes or range(LANES))
        return sum(sum(map(int, file.read_text().split())) for file in files if file.exists())

    async def run(self) -> None:
        """Until every event has its effect, and every producer knows of its own."""
        async with anyio.create_task_group() as tasks:
            for lane in range(LANES):
                tasks.start_soon(self._produce, lane)
            for number in range(CONSUMERS):
                tasks.start_soon(self._consume, number)
            tasks.start_soon(self._kill_now_and_then)
            tasks.start_soon(self._kill_the_broker)
            await self._finish()
            tasks.cancel_scope.cancel()

    async def _finish(self) -> None:
        began = told = time.monotonic()

        async def is_done() -> bool:
            nonlocal told
            self._count = await self._effects.count()
            _replace(self._handled, str(self._count))
            if LONG and time.monotonic() - told > 5:
                told = time.monotonic()
                print(
                    f"{told - began:5.0f} s  {self.confirmed():7,} confirmed  {self._count:7,} effects  {self.told()}"
                )
            return self._count >= EVENTS and self.confirmed() >= EVENTS

        await wait_until(is_done, within=WITHIN_S, every=LOOK_EVERY_S, what="every event to have its effect")

    def told(self) -> str:
        """Who was killed, and how often."""
        return ", ".join(f"{count} {what}" for what, count in sorted(self.killed.items()))

    async def _produce(self, lane: int) -> None:
        order = {"count": EVENTS, "keys": KEYS, "lane": lane, "lanes": LANES, "ahead": AHEAD}
        mine = sum(number % KEYS % LANES == lane for number in range(EVENTS))
        while self.confirmed(lane) < mine:
            await self._live("producer", lane, **self._publishing, publish=order)

    async def _consume(self, number: int) -> None:
        while True:
            process = await self._live("consumer", number, **self._consuming, die_after=self._dice.randint(*DIE_AFTER))
            if process.pid not in self._shot:
                self.killed["consumers between effect and ack"] += 1

    async def _live(self, kind: str, number: int, **order: object) -> psutil.Process:
        process = self._living[f"{kind}s {number}"] = await self._crew.hire(**order)
        await wait_until(lambda: has_ended(process), within=WITHIN_S, what=f"{kind} {number} to end")
        del self._living[f"{kind}s {number}"]
        return process

    async def _kill_now_and_then(self) -> None:
        while True:
            await self._progress(self._dice.randint(*KILL_AFTER))
            name = self._dice.choice(sorted(self._living) or [""])
            if name:
                self.killed[f"{name.split()[0]} at random"] += 1
                self._shot.add(self._living[name].pid)
                with suppress(psutil.NoSuchProcess):
                    self._living[name].kill()

    async def _kill_the_broker(self) -> None:
        each = EVENTS // BROKER_KILLS
        for _ in range(BROKER_KILLS):
            await self._progress(self._dice.randint(each // 2, each * 9 // 10))
            await self._kill_broker()
            self.killed["brokers"] += 1

    async def _progress(self, events: int) -> None:
        wanted = min(EVENTS, self._count + events)
        await wait_until(lambda: self._count >= wanted, within=WITHIN_S, what="some more effects")


def _replace(file: Path, text: str) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(file)


async def live_through_it(
    crew: Crew, folder: Path, events: dict[str, str], database: str, kill_broker: KillBroker
) -> None:
    began = time.monotonic()
    with anyio.fail_after(WITHIN_S):
        async with effects_in(database) as effects:
            havoc = Havoc(crew, effects, folder, events, database, kill_broker)
            try:
                await havoc.run()
            finally:
                crew.dismiss()
            by_key, repeats = await effects.by_key(), await effects.repeats()
    took_s = time.monotonic() - began
    print(f"{EVENTS:,} events in {took_s:.0f} s, killed {havoc.told()}; {repeats} came again when they were done")
    assert Counter(number for numbers in by_key.values() for number in numbers) == Counter(range(EVENTS))
    for numbers in by_key.values():
        assert numbers == sorted(numbers)
    # Each of these died with an event whose effect was there and whose ack was not.
    assert repeats >= havoc.killed["consumers between effect and ack"] > 0
    assert havoc.killed["brokers"] == BROKER_KILLS


async def make_group(events: dict[str, str]) -> None:
    """Have the group there before the first event is."""
    while True:
        with suppress(EventsUnavailable):
            async with (
                open_transport(
                    events["events"], home=Path(events.get("home", "")), token=events.get("token", "")
                ) as one,
                one.subscribe(Subscription((TOPIC,), group=GROUP, ordered=True)),
            ):
                return


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Generator[Crew]:
    with event_crew(tmp_path_factory.mktemp("crew")) as made:
        yield made


async def test_over_rabbitmq_no_event_is_lost_or_done_twice_whoever_is_killed(
    rabbit: RabbitServer, postgres: PostgresServer, crew: Crew, tmp_path: Path
) -> None:
    database = (await postgres.make_database()).replace("postgresql://", "postgresql+asyncpg://")
    await rabbit.wait_until_ready()
    events = {"events": f"{rabbit.url}?namespace=t{os.urandom(4).hex()}"}
    await make_group(events)
    rabbit.settle()
    # A kill takes many seconds to come back from; what it loses is another test's, with a few events less.
    kill = rabbit.restart if LONG else rabbit.restart_application
    await live_through_it(crew, tmp_path, events, database, kill)


async def test_over_the_embedded_log_no_event_is_lost_or_done_twice_whoever_is_killed(
    crew: Crew, tmp_path: Path
) -> None:
    events = {"events": "embedded://", "home": str(tmp_path), "token": ensure_credentials(tmp_path).admin}
    with killed_log(tmp_path) as log:
        await log.start()
        await make_group(events)

        async def kill() -> None:
            log.kill()
            await log.ended()
            await log.start()

        await live_through_it(crew, tmp_path, events, f"sqlite+aiosqlite:///{tmp_path}/effects.sqlite", kill)
