"""`toska events` against a mesh that runs: what a person sees and does about events."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from toska_cli.events import summarize, table
from toska_common.events import EventBus, Incoming, Reject, Retrying
from toska_common.events.opening import open_transport
from toska_tests.meshes import TOSKA, RunningMesh, toska_up
from toska_tests.programs import finished, running
from toska_tests.waiting import PATIENT_S, wait_until


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningMesh]:
    async with toska_up(tmp_path_factory.mktemp("mesh"), "--no-examples") as running:
        yield running


async def toska(mesh: RunningMesh, *words: str, code: int = 0) -> str:
    done = await finished([TOSKA, "events", *words], cwd=mesh.folder)
    assert done.returncode == code, done.stdout + done.stderr
    return (done.stdout if code == 0 else done.stderr).decode()


async def test_an_event_is_published_and_seen_in_its_topic(mesh: RunningMesh) -> None:
    printed = await toska(mesh, "publish", "shop.cart.left", '{"items": 3}', "--key", "c-1", "-a", "region=eu")
    (topic,) = [item for item in json.loads(await toska(mesh, "topics", "--json")) if item["name"] == "shop.cart.left"]
    assert topic["published"] == 1
    assert len(printed.strip()) == 36
    assert "shop.cart.left" in await toska(mesh, "topics")
    assert "not JSON" in await toska(mesh, "publish", "shop.cart.left", "{", code=2)
    assert "NAME=VALUE" in await toska(mesh, "publish", "shop.cart.left", "1", "-a", "region", code=2)
    assert "topic" in await toska(mesh, "publish", "not a topic", "1", code=1)


async def test_dead_letters_are_listed_shown_driven_again_and_purged(mesh: RunningMesh) -> None:
    bus = EventBus("undertaker", lambda: open_transport("embedded://", home=mesh.home, token=mesh.token("join")))
    seen = list[Any]()

    @bus.subscribe("dead.#", group="undertaker", retrying=Retrying(attempts=1))
    async def refuse(incoming: Incoming[Any]) -> None:
        seen.append(incoming.data)
        raise Reject("not\x1b[2Jtoday")

    async def are_dead(count: int) -> bool:
        found = json.loads(await toska(mesh, "dlq", "list", "--group", "undertaker", "--json"))
        return len(found) == count and len(seen) >= count

    async with bus.open():
        await bus.subscribed()
        for number in range(2):
            await toska(mesh, "publish", "dead.letter", str(number))
        await wait_until(lambda: are_dead(2), within=PATIENT_S)
        listed = await toska(mesh, "dlq", "list")
        assert "not\ufffd[2Jtoday" in listed
        letter = listed.splitlines()[1].split()[0]
        assert json.loads(await toska(mesh, "dlq", "show", letter))["event"]["type"] == "dead.letter"
        assert await toska(mesh, "dlq", "redrive", letter) == "1 driven again\n"
        await wait_until(lambda: are_dead(2), within=PATIENT_S)
        assert "undertaker" in await toska(mesh, "groups")
    assert await toska(mesh, "dlq", "purge", "--group", "undertaker") == "2 forgotten\n"
    assert await toska(mesh, "dlq", "list") == "no dead letters\n"
    assert "say which" in await toska(mesh, "dlq", "purge", code=2)
    assert await toska(mesh, "replay", "undertaker", "--beginning") == "undertaker is going to be given 2 events\n"
    assert "say where from" in await toska(mesh, "replay", "undertaker", code=2)
    assert "no group" in (await toska(mesh, "replay", "nobody", "--beginning", code=1)).lower()


def test_an_event_is_one_line_without_a_terminals_commands() -> None:
    event = {
        "type": "a.b",
        "source": "/s",
        "time": "2026-01-31T12:30:15.250000Z",
        "partitionkey": "k\x1b",
        "data": "x\n",
    }
    line = summarize(event)
    assert line.startswith("12:30:15.250  a.b")
    assert "partitionkey=k\ufffd" in line
    assert line.isprintable()
    assert table([("A", "B"), ("aaa", "b\x1b")]) == ["A    B", "aaa  b\ufffd"]


async def test_events_are_followed_as_they_come(mesh: RunningMesh) -> None:
    command = [TOSKA, "events", "tail", "followed.#", "--where", "region=eu", "--count", "2", "--json"]
    with running(command, mesh.folder) as program:
        seen = list[Any]()

        async def is_seen() -> bool:
            # What is published before the stream stands is not for it.
            await toska(mesh, "publish", "followed.topic", '"x"', "-a", "region=eu")
            await toska(mesh, "publish", "followed.topic", '"y"', "-a", "region=us")
            seen[:] = [json.loads(line) for line in program.stdout.splitlines()]
            return len(seen) >= 2

        await wait_until(is_seen, within=PATIENT_S, what="two events are followed")
        assert await program.exit_code() == 0
    assert [(event["data"], event["region"]) for event in seen] == [("x", "eu"), ("x", "eu")]
    beginning = await toska(mesh, "tail", "followed.*", "--beginning", "-n", "1")
    assert "followed.topic" in beginning
    assert "pattern" in await toska(mesh, "tail", "a..b", code=1)
