"""What of a request reaches the upstream, and what of its response the client."""

import asyncio
import json
import random
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from toska_common.clock import now_utc
from toska_tests.gateways import Gateway, route, single
from toska_tests.raw_http import (
    OK,
    Conversation,
    answering,
    ask,
    chunks,
    connected,
    get,
    request,
    response,
    upstream,
)

PAYLOAD = b"hello\r\n0\r\n\r\nworld"


async def test_a_request_reaches_the_upstream_and_its_response_the_client(gateway: Gateway) -> None:
    reply = response(201, "content-type: text/plain", "set-cookie: a=1", "Set-Cookie: b=2", body=b"made")
    async with upstream(reply) as app:
        await gateway.serve(single(app.port))
        answer = await ask(gateway.address, request("POST", "/a/b?c=d%20e&f", "X-One: 1", "x-one: 2", body=b"hello"))
        sent = app.requests[0]
        assert sent.start == b"POST /a/b?c=d%20e&f HTTP/1.1"
        assert (sent.value("host"), sent.values("x-one"), sent.body) == (b"test", [b"1", b"2"], b"hello")
        assert answer.start == b"HTTP/1.1 201 Some Reason"
        assert (answer.values("set-cookie"), answer.body, answer.error) == ([b"a=1", b"b=2"], b"made", None)


async def test_requests_of_one_client_share_connections_on_both_sides(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for _ in range(5):
                assert (await client.ask(get())).body == b"ok"
        assert len(app.conversations) == 1


@pytest.mark.parametrize(
    ("to", "reply", "status", "length", "body"),
    [
        ("GET", response(200, body=b"hello"), 200, b"5", b"hello"),
        ("GET", response(200), 200, b"0", b""),
        ("HEAD", response(200, "content-length: 5", length=False), 200, b"5", b""),
        ("HEAD", response(200, length=False), 200, None, b""),
        ("GET", response(204, length=False), 204, None, b""),
        ("GET", response(204, "content-length: 5", length=False), 204, None, b""),
        ("GET", response(304, "content-length: 5", "etag: x", length=False), 304, b"5", b""),
        ("POST", response(205), 205, b"0", b""),
        ("GET", response(404, body=b"none"), 404, b"4", b"none"),
        ("GET", response(500, body=b"oops"), 500, b"4", b"oops"),
    ],
)
async def test_responses_with_and_without_bodies_keep_both_connections_in_step(
    gateway: Gateway, to: str, reply: bytes, status: int, length: bytes | None, body: bytes
) -> None:
    async with upstream(answering(reply, OK)) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            answer = await client.ask(request(to), to=to)
            assert (answer.status, answer.value("content-length"), answer.body) == (status, length, body)
            assert (await client.ask(get("/next"))).body == b"ok"
        assert len(app.conversations) == 1


async def test_a_head_response_to_an_old_client_has_no_transfer_coding(gateway: Gateway) -> None:
    async with upstream(response(200, "transfer-encoding: chunked", length=False)) as app:
        await gateway.serve(single(app.port))
        assert (await ask(gateway.address, request("HEAD"), to="HEAD")).value("transfer-encoding") == b"chunked"
        old = await ask(gateway.address, request("HEAD", version="HTTP/1.0"), to="HEAD")
        assert old.value("transfer-encoding") is None


async def test_interim_responses_are_passed_on_to_those_who_know_them(gateway: Gateway) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"
    async with upstream(b"HTTP/1.1 100 Continue\r\n\r\n" + early + b"HTTP/1.1 102 Processing\r\n\r\n" + OK) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for _ in range(2):
                answer = await client.ask(get())
                assert [message.status for message in answer.interim] == [103, 102]  # 100 was not asked for
                assert answer.interim[0].value("link") == b"</a.css>"
                assert answer.body == b"ok"
        assert (await ask(gateway.address, get(version="HTTP/1.0"))).interim == []


async def test_a_body_that_waits_for_100_continue_is_called_for(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        message = await conversation.request_head()
        assert message.value("expect") == b"100-continue"
        await conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await conversation.exactly(5) == b"hello"
        await conversation.send(OK)

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            await client.send(request("PUT", "/", "Expect: 100-continue", "content-length: 5"))
            assert (await client.head()).status == 100
            await client.send(b"hello")
            answer = await client.response()
            assert (answer.status, answer.interim) == (200, [])


async def test_a_refusal_instead_of_100_continue_ends_the_connection(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request_head()
        await conversation.send(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            await client.send(request("PUT", "/", "Expect: 100-continue", "content-length: 5"))
            answer = await client.response()
            assert (answer.status, answer.value("connection"), answer.interim) == (417, b"close", [])
            assert await client.is_closed()


async def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            await conversation.send(response(200, body=message.target.encode() + message.body))

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            messages = [get("/1"), request("POST", "/2", body=b"x"), request("HEAD", "/3"), b"\r\n" + get("/4")]
            messages.append(request("POST", "/5", "transfer-encoding: chunked") + chunks([b"y", b"z"]))
            whole = b"".join(messages) + get("/6")
            await client.send(whole)
            bodies = [(await client.response(to="HEAD" if n == 2 else "GET")).body for n in range(6)]
            assert bodies == [b"/1", b"/2x", b"", b"/4", b"/5yz", b"/6"]
            for at in range(1, len(whole), 23):
                await client.send(whole[:at])
                await client.send(whole[at:])
                bodies = [(await client.response(to="HEAD" if n == 2 else "GET")).body for n in range(6)]
                assert bodies == [b"/1", b"/2x", b"", b"/4", b"/5yz", b"/6"]


async def test_a_chunked_request_arrives_whole_wherever_it_is_split(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        head = request("POST", "/", "Transfer-Encoding: Chunked", "Trailer: X-Trailer")
        body = chunks([PAYLOAD[:7], PAYLOAD[7:]], extension=b";a=b", trailers=b"X-Trailer: 1\r\nContent-Length: 3\r\n")
        async with connected(gateway.address) as client:
            for at in range(len(head) - 3, len(head + body)):
                await client.send((head + body)[:at])
                await client.send((head + body)[at:])
                assert (await client.response()).status == 200
            for byte in head + body:
                await client.send(bytes([byte]))
            assert (await client.response()).status == 200
        assert {message.body for message in app.requests} == {PAYLOAD}
        assert all(message.value("transfer-encoding") == b"chunked" for message in app.requests)
        assert not {"trailer", "x-trailer", "content-length"} & {n for m in app.requests for n in m.names()}
        assert b"X-Trailer" not in app.received


async def test_a_chunked_response_arrives_whole_wherever_it_is_split(gateway: Gateway) -> None:
    body = chunks([PAYLOAD[:7], PAYLOAD[7:]], extension=b';a="b"', trailers=b"X-Trailer: 1\r\n")
    whole = response(200, "Transfer-Encoding: chunked", "Trailer: x-trailer", length=False) + body

    async def script(conversation: Conversation) -> None:
        at = 0
        while True:
            await conversation.request()
            await conversation.send(whole[:at])
            await conversation.send(whole[at:])
            at += 1

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for _ in range(len(whole)):
                answer = await client.ask(get())  # a trailer that was passed on would be an error here
                assert answer.body == PAYLOAD
                assert answer.value("trailer") is None
        assert len(app.conversations) == 1


@pytest.mark.parametrize("seed", range(25))
async def test_any_bodies_in_any_pieces_arrive_as_they_were_sent(gateway: Gateway, seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 4)
    bodies = [chance.randbytes(chance.choice([0, 1, 20, 2000, 100_000])) for _ in range(2 * count)]
    requests, replies = bodies[:count], bodies[count:]
    whole = b"".join(framed(request, "PUT", payload, chance) for payload in requests)
    cuts = sorted(chance.randint(0, len(whole)) for _ in range(4))

    async def script(conversation: Conversation) -> None:
        for payload in replies:
            await conversation.request()
            await conversation.send(framed(response, 200, payload, chance))
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
                client.post(whole[start:end])
                await asyncio.sleep(0)
            assert [(await client.response()).body for _ in requests] == replies
        assert [message.body for message in app.requests] == requests


def framed(build: Any, first: Any, payload: bytes, chance: random.Random) -> bytes:
    """A message with a body, one way or the other."""
    if chance.random() < 0.5:
        return build(first, *(["/"] if build is request else []), body=payload)
    fields = ["transfer-encoding: chunked"]
    head = build(first, "/", *fields) if build is request else build(first, *fields, length=False)
    pieces = [payload[at : at + 700] for at in range(0, len(payload), 700)]
    return head + chunks(pieces)


@pytest.mark.parametrize("kind", ["length", "chunked", "until close"])
async def test_an_old_client_gets_every_kind_of_body_in_a_way_it_understands(gateway: Gateway, kind: str) -> None:
    reply = {
        "length": response(200, body=PAYLOAD),
        "chunked": response(200, "transfer-encoding: chunked", length=False) + chunks([PAYLOAD]),
        "until close": response(200, length=False) + PAYLOAD,
    }[kind]

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(reply)
            if kind == "until close":
                break

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        for fields in ((), ("Connection: keep-alive",)):
            async with connected(gateway.address) as client:
                answer = await client.ask(get("/", *fields, version="HTTP/1.0"))
                assert answer.body == PAYLOAD
                assert answer.value("transfer-encoding") is None
                kept = bool(fields) and kind == "length"
                assert answer.value("connection") == (b"keep-alive" if kept else b"close")
                if not kept:
                    assert await client.is_closed()


async def test_an_old_client_without_a_host_is_served(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        assert (await ask(gateway.address, get(version="HTTP/1.0", host=None))).status == 200
        assert app.requests[0].start == b"GET / HTTP/1.1"
        assert app.requests[0].value("host") == b""
        assert app.requests[0].value("x-forwarded-for") == b"127.0.0.1"
        assert app.requests[0].value("via") == b"1.0 " + gateway.name


async def test_a_body_that_ends_with_its_connection_is_given_an_end(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\n" + PAYLOAD)

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for _ in range(3):
                answer = await client.ask(get())
                assert (answer.value("transfer-encoding"), answer.body) == (b"chunked", PAYLOAD)
        assert len(app.conversations) == 3


async def test_connections_that_either_side_wants_closed_are_closed(gateway: Gateway) -> None:
    async with upstream(response(200, "Connection: close", body=b"ok")) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for _ in range(2):
                assert (await client.ask(get())).value("connection") is None
            answer = await client.ask(get("/", "Connection: close"))
            assert answer.value("connection") == b"close"
            assert await client.is_closed()
        assert len(app.conversations) == 3
        assert all(message.value("connection") is None for message in app.requests)


async def test_fields_for_one_hop_are_not_passed_on_either_way(gateway: Gateway) -> None:
    reply = response(
        200,
        "Connection: X-Hop",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Authenticate: Basic",
        "X-Kept: 1",
        body=b"",
    )
    async with upstream(reply) as app:
        await gateway.serve(single(app.port))
        fields = ["Connection: keep-alive, X-Hop, X-Forwarded-For, Via, traceparent, x-request-id, host, x-real-ip"]
        fields += ["X-Hop: 1", "TE: trailers", "Trailer: x", "Keep-Alive: 5", "Proxy-Connection: x", "X-Kept: 1"]
        fields += ["Proxy-Authorization: Basic x", "Upgrade: h2c", "HTTP2-Settings: x"]
        answer = await ask(gateway.address, get("/", *fields))
        assert set(answer.names()) == {"x-kept", "content-length", "via"}
        assert set(app.requests[0].names()) == {
            "host", "x-kept", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "forwarded",
            "via", "x-request-id", "traceparent",
        }  # fmt: skip


async def test_an_upstream_cannot_pose_as_the_gateway(gateway: Gateway) -> None:
    async with upstream(response(503, "X-Toska-Error: no-route", body=b"mine")) as app:
        await gateway.serve(single(app.port))
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.error, answer.body) == (503, None, b"mine")


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/a/../b", "/b"),
        ("//a//b", "/a/b"),
        ("/%7Ea/%41", "/~a/A"),
        ("/a%20b%3Fc%23d%25e", "/a%20b%3Fc%23d%25e"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/a?q=/../%2f%00//x", "/a?q=/../%2f%00//x"),
        ("/?", "/?"),
        ("http://test/x/./y?z", "/x/y?z"),
    ],
)
async def test_paths_are_forwarded_in_the_form_that_was_matched_and_queries_as_they_came(
    gateway: Gateway, target: str, sent: str
) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        assert (await ask(gateway.address, get(target))).status == 200
        assert app.requests[0].target == sent


async def test_server_sent_events_arrive_as_they_are_sent(gateway: Gateway) -> None:
    events: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        fields = ("content-type: text/event-stream", "transfer-encoding: chunked")
        await conversation.send(response(200, *fields, length=False))
        while event := await events.get():
            await conversation.send(b"%x\r\n%b\r\n" % (len(event), event))

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            await client.send(get())
            assert (await client.head()).status == 200  # before there is any event
            for number in range(5):
                event = b"data: %d\n\n" % number
                events.put_nowait(event)
                assert await client.until(b"\n\n\r\n") == b"9\r\n" + event + b"\r\n"
            events.put_nowait(b"")


async def test_the_worker_counts_what_it_served(gateway: Gateway) -> None:
    async with upstream(answering(OK, response(404), OK)) as app:
        await gateway.serve({**single(app.port), "routes": [route("counted")]})
        async with connected(gateway.address) as client:
            for _ in range(3):
                await client.ask(get())
        assert await gateway.metric("requests_total", route="counted", status="200") == 2
        assert await gateway.metric("requests_total", route="counted", status="404") == 1
        assert await gateway.metric("request_duration_seconds_count", route="counted") == 3
        assert await gateway.metric("endpoint_requests", endpoint=f"127.0.0.1:{app.port}") == 3
        await gateway.until_quiet()


async def test_the_gateways_own_answers_are_problem_documents(gateway: Gateway) -> None:
    await gateway.serve({})
    answer = await ask(gateway.address, get("/", "traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
    assert (answer.status, answer.value("content-type"), answer.error) == (404, b"application/problem+json", "no-route")
    said = parsedate_to_datetime((answer.value("date") or b"").decode())
    assert abs((now_utc() - said).total_seconds()) < 5
    problem = json.loads(answer.body)
    assert problem["type"] == "/problems/no-route"
    assert problem["status"] == 404
    assert problem["title"]
    assert problem["detail"]
    assert len(problem["trace_id"]) == 32
