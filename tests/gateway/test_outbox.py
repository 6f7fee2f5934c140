"""What a turn of the loop has produced is written at its end: in order, whole, and to nobody who lost interest."""

import asyncio
import socket

from toska_gateway.worker.outbox import Outbox, Outlet
from toska_tests.gateways import cluster, plane_here, route, single
from toska_tests.raw_http import OK, Conversation, connected, get, response, upstream


async def outlets(count: int) -> tuple[list[Outlet], list[socket.socket]]:
    """Connections with an outbox in common, and their other ends."""
    loop = asyncio.get_running_loop()
    outbox = Outbox(loop)
    ours: list[Outlet] = []
    theirs: list[socket.socket] = []
    for _ in range(count):
        here, there = socket.socketpair()
        there.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=here)
        ours.append(Outlet(transport, outbox))
        theirs.append(there)
    return ours, theirs


def taken(end: socket.socket) -> bytes:
    """What is there to be read at this moment."""
    try:
        return end.recv(1 << 16)
    except BlockingIOError:
        return b""


async def test_held_bytes_leave_at_the_end_of_the_turn_and_before_whatever_is_written_at_once() -> None:
    (one, other, ended, dropped), ends = await outlets(4)
    try:
        for outlet in (one, other, ended, dropped):
            outlet.write_soon(b"first ")
            outlet.write_soon(b"second ")
        assert [taken(end) for end in ends] == [b""] * 4
        assert other.get_write_buffer_size() == len(b"first second ")
        one.write(b"third")
        ended.write_eof()
        dropped.abort()
        assert taken(ends[0]) == b"first second third"
        assert taken(ends[2]) == b"first second "
        await asyncio.sleep(0)
        assert taken(ends[1]) == b"first second "
        assert [taken(end) for end in (ends[0], ends[2], ends[3])] == [b""] * 3
    finally:
        for outlet, end in zip((one, other, ended, dropped), ends, strict=True):
            outlet.abort()
            end.close()


async def test_nobody_waits_for_more_than_a_few_others() -> None:
    ours, ends = await outlets(40)
    try:
        for outlet in ours:
            outlet.write_soon(b"x")
        early = sum(taken(end) == b"x" for end in ends)
        assert 0 < early < 40
        await asyncio.sleep(0)
        assert early + sum(taken(end) == b"x" for end in ends) == 40
    finally:
        for outlet, end in zip(ours, ends, strict=True):
            outlet.abort()
            end.close()


async def test_an_answer_that_comes_before_its_request_has_left_is_nobodys() -> None:
    conversations: list[Conversation] = []

    async def script(conversation: Conversation) -> None:
        conversations.append(conversation)
        while True:
            await conversation.request()
            await conversation.send(OK)

    async with upstream(script) as app, plane_here(single(app.port)) as (_, address), connected(address) as client:
        assert (await client.ask(get())).body == b"ok"
        # Both are there when the gateway looks next: the request, and what the connection that it will get has to say.
        client.post(get())
        conversations[0].post(response(200, body=b"stale"))
        assert (await client.response()).body == b"ok"
        assert len(conversations) == 2


async def test_a_forwarded_answer_stands_before_one_that_the_gateway_gives_in_the_same_turn() -> None:
    async with upstream() as app:
        here = {"name": "here", "match": {"path": "/here"}, "respond": {"status": 200, "body": "from here"}}
        document = {"clusters": {"app": cluster(app.port)}, "routes": [here, route("all")]}
        async with plane_here(document) as (_, address), connected(address) as client:
            for _ in range(3):
                client.post(get("/") + get("/here") + get("/") + get("/here"))
                assert [(await client.response()).body for _ in range(4)] == [b"ok", b"from here"] * 2


async def test_a_client_that_has_said_all_it_will_gets_the_answer_that_was_held() -> None:
    async with upstream() as app, plane_here(single(app.port)) as (_, address), connected(address) as client:
        client.post(get())
        client.end_writing()
        assert (await client.response()).body == b"ok"
        assert await client.is_closed()
