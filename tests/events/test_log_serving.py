"""The embedded log's socket: who may come in, what is answered to garbage, and that one client harms no other."""

import contextlib
import os
import socket
import sqlite3
import stat
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.to_thread import run_sync
from hypothesis import given
from hypothesis import strategies as st
from toska_common.clock import now_utc
from toska_common.errors import ConfigurationError, Conflict, Forbidden, InvalidInput
from toska_common.events.embedded import paths
from toska_common.events.embedded.frames import BadFrame, FrameReader, Kind, frame, json_frame
from toska_common.events.embedded.paths import socket_path
from toska_common.events.embedded.records import decode_event, decode_messages, encode_head, encode_messages
from toska_common.events.errors import EventsUnavailable, EventTooLarge
from toska_common.events.event import Event
from toska_common.events.transport import BEGINNING, Message, Subscription, Transport
from toska_common.testing import FakeClock
from toska_events.hosting import host_log
from toska_events.settings import Settings
from toska_tests.event_carriers import LogHost, log_host, publish, take, take_acked
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@contextmanager
def raw_client(log: LogHost) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(socket_path(log.settings.home)))
        yield client


def _read_to_end(client: socket.socket) -> bytes:
    found = b""
    while chunk := client.recv(65536):
        found += chunk
    return found


def hello(log: LogHost, **more: object) -> bytes:
    content = {"protocol": 1, "token": log.credentials.join, "service": "raw", **more}
    return json_frame(Kind.HELLO, content)


def some_event(name: str = "1", data: bytes = b"{}") -> Event:
    return Event(topic="a.b", source="/tests", id=name, time=now_utc(), data=data)


MESSAGE = b"".join(encode_messages([Message(some_event())]))


@pytest.fixture
async def transport(event_log: LogHost) -> AsyncGenerator[Transport]:
    async with event_log.connect() as found:
        yield found


async def test_the_socket_is_its_owners_alone(event_log: LogHost) -> None:
    mode = socket_path(event_log.settings.home).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "bytes"),
        (frame(Kind.PUBLISH, b"\0\0\0\0"), "say hello"),
        (json_frame(Kind.HELLO, {"protocol": 2, "token": "x"}), "version 1"),
        (json_frame(Kind.HELLO, {"protocol": 1, "token": "wrong"}), "token is not known"),
        (json_frame(Kind.HELLO, {"protocol": 1}), "token is not known"),
        (frame(Kind.HELLO, b"\xff not json"), "JSON"),
        (frame(Kind.HELLO, b"[" * 4000), "JSON"),
        (frame(Kind.HELLO, b"[]"), "no object"),
    ],
)
async def test_who_does_not_say_hello_as_is_due_is_told_why_and_cut_off(
    event_log: LogHost, transport: Transport, sent: bytes, reason: str
) -> None:
    with raw_client(event_log) as client:
        client.sendall(sent)
        answer = await run_sync(_read_to_end, client)
    ((kind, payload),) = FrameReader().feed(answer)
    assert kind == Kind.GOODBYE
    assert reason in payload.decode()
    await publish(transport, some_event())


@pytest.mark.parametrize(
    "sent",
    [
        frame(Kind.WELCOME),
        b"\xff\xff\xff\xff\x02",
        frame(Kind.PUBLISH, b"\0"),
        frame(Kind.PUBLISH, b"\0\0\0\0cut off"),
        frame(Kind.PUBLISH, b"\0\0\0\0", MESSAGE[:-1]),
        frame(Kind.PUBLISH, b"\0\0\0\0", MESSAGE.replace(b"a.b", b"a b")),
        frame(Kind.PUBLISH, b"\0\0\0\0", MESSAGE.replace(b"/tes", b"\xff" * 4)),
        frame(Kind.RETRY, b"\0\0\0\0", b"short"),
        frame(Kind.SUBSCRIBE, b"\0\0\0\0", b"not json"),
        frame(Kind.CALL, b"\0"),
        b"\0\0\0\0\x63",
    ],
    ids=range(11),
)  # fmt: skip
async def test_garbage_after_hello_ends_the_connection_and_harms_no_other(
    event_log: LogHost, transport: Transport, sent: bytes
) -> None:
    async with transport.subscribe(Subscription(("#",))) as consumer:
        with raw_client(event_log) as client:
            client.sendall(hello(event_log) + sent)
            answer = await run_sync(_read_to_end, client)
        assert [kind for kind, _ in FrameReader().feed(answer)] == [Kind.WELCOME, Kind.GOODBYE]
        await publish(transport, some_event())
        assert await take_acked(consumer) == [b"{}"]


async def test_a_request_that_is_wrong_is_refused_alone(event_log: LogHost) -> None:
    subscribe = {"patterns": ["a..b"], "prefetch": 1, "attempts": 1}
    with raw_client(event_log) as client:
        client.sendall(
            hello(event_log)
            + json_frame(Kind.SUBSCRIBE, subscribe, 1)
            + json_frame(Kind.SUBSCRIBE, {"patterns": "x"}, 2)
            + json_frame(Kind.READ, {"patterns": ["#"], "after": "soon"}, 3)
            + json_frame(Kind.SUBSCRIBE, {**subscribe, "patterns": ["a"], "prefetch": 10**9}, 4)
            + json_frame(Kind.SUBSCRIBE, {**subscribe, "patterns": ["a"]}, 5)
        )
        reader, kinds = FrameReader(), list[int]()
        while Kind.SUBSCRIBED not in kinds or len(kinds) < 6:
            kinds += [kind for kind, _ in reader.feed(await run_sync(client.recv, 65536))]
    assert sorted(kinds) == [Kind.WELCOME, Kind.FAILED, Kind.FAILED, Kind.FAILED, Kind.FAILED, Kind.SUBSCRIBED]


async def test_managing_needs_the_admin_token_and_the_rest_does_not(event_log: LogHost) -> None:
    async with event_log.connect(token=event_log.credentials.join) as joined:
        async with joined.subscribe(Subscription(("#",), group="g")) as consumer:
            await publish(joined, some_event())
            assert await take_acked(consumer) == [b"{}"]
        for refused in (joined.administration.topics(), joined.administration.delete_group("g")):
            with pytest.raises(Forbidden, match="admin token"):
                await refused


async def test_a_token_of_another_mesh_is_refused_when_the_connection_is_opened(event_log: LogHost) -> None:
    with pytest.raises(EventsUnavailable, match="the token is not known"):
        async with event_log.connect(token="toska_join_stolen"):
            pass


async def test_no_log_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    from toska_common.events.opening import open_transport

    with pytest.raises(EventsUnavailable, match=r"no event log at .*log\.sock: No such file"):
        async with open_transport("embedded://", home=tmp_path, token="x"):
            pass


async def test_a_client_that_reads_nothing_is_given_no_more_and_others_go_on(
    event_log: LogHost, transport: Transport
) -> None:
    subscription = {"patterns": ["#"], "group": "g", "prefetch": 10_000, "attempts": 5}
    with raw_client(event_log) as stalled:
        stalled.sendall(hello(event_log) + json_frame(Kind.SUBSCRIBE, subscription, 1))
        await wait_until(lambda: "g" in event_log.hosted.broker.groups)
        group = event_log.hosted.broker.groups["g"]
        await wait_until(lambda: bool(group.members))
        async with transport.subscribe(Subscription(("#",), group="g", prefetch=50)) as healthy:
            count = 300
            for start in range(0, count, 20):
                await publish(transport, *(some_event(str(n), b"x" * 100_000) for n in range(start, start + 20)))
            # The stalled one has a socket's buffers full at most: it cannot be given all that it has room for.
            deaf, _ = group.members
            await wait_until(lambda: not deaf.listening, what="the stalled client to be noticed")
            held = len(deaf.held)
            with anyio.fail_after(30):
                await take_acked(healthy, count - held)
            assert held * 100_000 < 16 << 20
            stalled.close()
            assert len(await take_acked(healthy, held)) == held


async def test_publishers_that_send_faster_than_the_disk_are_slowed_and_memory_stays_flat(event_log: LogHost) -> None:
    most = 0
    async with event_log.connect() as transport, anyio.create_task_group() as tasks:
        writer = event_log.hosted.broker.writer

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, writer.waiting_bytes)
                await anyio.lowlevel.checkpoint()

        async def send(number: int) -> None:
            await publish(transport, some_event(str(number), os.urandom(1 << 20)))

        tasks.start_soon(watch)
        async with anyio.create_task_group() as sending:
            for number in range(40):
                sending.start_soon(send, number)
        tasks.cancel_scope.cancel()
    assert 0 < most <= 9 << 20


async def test_a_dead_clients_events_go_to_others_at_once(event_log: LogHost, transport: Transport) -> None:
    subscription = {"patterns": ["#"], "group": "g", "prefetch": 10, "attempts": 5}
    with raw_client(event_log) as dying:
        dying.sendall(hello(event_log) + json_frame(Kind.SUBSCRIBE, subscription, 1))
        await wait_until(lambda: "g" in event_log.hosted.broker.groups)
        group = event_log.hosted.broker.groups["g"]
        await wait_until(lambda: bool(group.members))
        await publish(transport, some_event())
        await wait_until(lambda: bool(group.given))
    async with transport.subscribe(Subscription(("#",), group="g")) as consumer:
        (again,) = await take(consumer)
        assert again.attempt == 2


async def test_a_home_with_a_long_path_is_served_and_reached(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 30)
    home.mkdir()
    async with log_host(home) as host, host.connect() as transport:
        await publish(transport, some_event())


def test_where_a_path_cannot_be_shortened_it_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="choose a shorter TOSKA_HOME"),
        paths.socket_address(tmp_path / ("x" * 120), platform="darwin"),
    ):
        pass


async def test_a_second_log_over_the_same_home_is_refused_and_the_first_goes_on(event_log: LogHost) -> None:
    with pytest.raises(ExceptionGroup) as refused:
        async with log_host(event_log.settings.home):
            pass
    assert refused.group_contains(ConfigurationError, match="is open in another process")
    async with event_log.connect() as transport:
        await publish(transport, some_event())


async def test_a_socket_that_a_killed_log_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with log_host(tmp_path) as host, host.connect() as transport:
        await publish(transport, some_event())


async def test_a_call_during_an_outage_is_answered_once_the_log_is_back(event_log: LogHost) -> None:
    async with event_log.connect() as transport:
        await event_log.stop()
        await wait_until(lambda: not transport.connected)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish, transport, some_event("during"))
            await anyio.lowlevel.checkpoint()
            await event_log.start()
        async with transport.subscribe(Subscription(("#",), group="g")) as consumer:
            await publish(transport, some_event("during"), some_event("after", b"after"))
            assert await take_acked(consumer) == [b"after"]  # the first is known by its source and id


async def test_own_subscriptions_miss_nothing_while_the_log_is_away(event_log: LogHost) -> None:
    async with event_log.connect() as transport, transport.subscribe(Subscription(("#",))) as consumer:
        await publish(transport, some_event("1", b"1"), some_event("2", b"2"))
        first, _ = await take(consumer, 2)
        await first.ack()
        await event_log.stop()
        await event_log.start()
        async with event_log.connect() as other:
            await publish(other, some_event("3", b"3"))
        again, new = await take(consumer, 2)
        assert [(one.event.data, one.attempt) for one in (again, new)] == [(b"2", 2), (b"3", 1)]


async def test_an_attribute_with_a_nul_is_refused_before_it_is_sent(transport: Transport) -> None:
    event = Event(topic="a", source="/s", id="1", time=now_utc(), subject="x\0y")
    with pytest.raises(InvalidInput) as refused:
        await publish(transport, event)
    assert refused.value.extensions["problems"][0]["field"] == "subject"


async def test_a_batch_over_the_limit_is_refused_whole(transport: Transport) -> None:
    with pytest.raises(EventTooLarge, match="of one call"):
        await publish(transport, *(some_event(str(n), b"x" * (1 << 20)) for n in range(17)))


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(1, 40))
def test_frames_are_found_however_the_stream_is_cut(payloads: list[bytes], step: int) -> None:
    stream = b"".join(frame(Kind.ACK, payload) for payload in payloads)
    reader, found = FrameReader(), list[bytes]()
    for start in range(0, len(stream), step):
        found += [payload for _, payload in reader.feed(stream[start : start + step])]
    assert found == payloads


_TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=20)


@given(_TEXT, st.none() | _TEXT, st.none() | _TEXT, st.dictionaries(_TEXT, _TEXT, max_size=4), st.binary(max_size=50))
def test_an_event_is_the_same_after_the_wire(
    name: str, key: str | None, subject: str | None, attributes: dict[str, str], data: bytes
) -> None:
    event = Event(
        topic="a.b", source="/s", id=name, time=now_utc(), data=data, key=key, subject=subject, attributes=attributes
    )
    assert decode_event(encode_head(event), data) == event


@given(st.binary(max_size=200))
def test_whatever_comes_as_messages_is_read_or_refused(payload: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode_messages(payload, 1000, set())


async def test_a_log_that_cannot_go_on_says_so_and_answers_again_once_it_was_opened_anew(event_log: LogHost) -> None:
    async with event_log.connect() as transport:
        await publish(transport, some_event("1"))
        path = event_log.hosted.broker.file.path
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as vandal:
            vandal.execute("ALTER TABLE events RENAME TO gone")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish, transport, some_event("2", b"2"))
                await wait_until(lambda: bool(event_log.crashes), what="the log to say that it cannot go on")
                vandal.execute("ALTER TABLE gone RENAME TO events")
                await event_log.restart()
        stored = [one.event.id async for one in transport.read(["#"], BEGINNING)]
        assert stored == ["1", "2"]


async def test_a_client_that_is_silent_for_long_is_taken_for_dead_and_one_that_answers_is_not(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    settings = Settings(home=tmp_path)

    def never(error: Exception) -> None:
        raise AssertionError from error

    async with host_log(settings, clock, never) as hosted:
        host = LogHost(settings, hosted.served.tasks)
        async with host.connect() as transport:
            with raw_client(host) as frozen:
                subscription = {"patterns": ["#"], "group": "g", "prefetch": 10, "attempts": 5}
                frozen.sendall(hello(host) + json_frame(Kind.SUBSCRIBE, subscription, 1))
                await wait_until(lambda: "g" in hosted.broker.groups)
                await wait_until(lambda: bool(hosted.broker.groups["g"].members))
                await publish(transport, some_event())
                await wait_until(lambda: bool(hosted.broker.groups["g"].given))
                for _ in range(2):  # each is a ping for both, and only one of them answers
                    clock.advance(seconds=30)
                    before = clock.monotonic()
                    await wait_until(lambda now=before: any(one.heard_at >= now for one in hosted.served.connections))
                await wait_until(lambda: not hosted.broker.groups["g"].members, what="the frozen client to be let go")
            assert transport.connected
            assert len(hosted.served.connections) == 1


async def test_a_new_group_that_several_join_at_once_is_made_once(event_log: LogHost) -> None:
    wanted = Subscription(("together.#",), group="together")
    opened = 0

    async def join() -> None:
        nonlocal opened
        async with event_log.connect() as transport, transport.subscribe(wanted):
            opened += 1
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(join)
        await wait_until(lambda: opened == 8)
        (state,) = [entry for entry in event_log.hosted.broker.all_groups() if entry.name == "together"]
        assert len(state.members) == 8
        group.cancel_scope.cancel()


async def test_a_group_is_joined_again_while_it_is_being_deleted(event_log: LogHost) -> None:
    wanted = Subscription(("again.#",), group="again")
    async with event_log.connect() as first, event_log.connect() as second:

        async def join() -> None:
            async with second.subscribe(wanted):
                pass

        async def delete() -> None:
            with contextlib.suppress(Conflict):  # it was joined first
                await first.administration.delete_group("again")

        for _ in range(10):
            await join()
            await wait_until(lambda: not event_log.hosted.broker.groups["again"].members)
            async with anyio.create_task_group() as group:
                group.start_soon(delete)
                group.start_soon(join)
    assert event_log.crashes == []
