"""Responses compressed on their way to the client: which, how their heads change, and that nothing is held back."""

import asyncio
import hashlib
from typing import Any

import psutil
import pytest
from toska_common.routing.problems import InvalidDocument
from toska_tests.codings import CODINGS, Decoder, decode
from toska_tests.gateways import Gateway, plane_here, single, snapshot_of
from toska_tests.raw_http import Client, Conversation, Message, ask, chunks, connected, get, request, response, upstream

MB = 1 << 20
TEXT = b"the same words again and again, and now and then 1234567 other ones. " * 200
HTML = "content-type: text/html; charset=utf-8"
BROWSER = "accept-encoding: gzip, deflate, br, zstd"


def compressed(port: int, **compress: Any) -> dict[str, Any]:
    """Everything to one cluster, compressed."""
    return single(port, policies={"compress": compress})


def decoded(message: Message) -> bytes:
    """A response's body without its coding."""
    coding = message.value("content-encoding")
    return message.body if coding is None else decode(coding.decode(), message.body)


async def chunk(client: Client) -> bytes:
    """The next chunk of a response's body; empty at the end."""
    size = int(await client.until(b"\r\n"), 16)
    return (await client.exactly(size + 2))[:-2]


def untouched(message: Message) -> bool:
    """Whether a response came as the upstream sent it."""
    return message.body == TEXT and message.value("content-encoding") is None


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_client_gets_the_coding_it_takes_with_its_exact_length(gateway: Gateway, coding: str) -> None:
    async with upstream(response(200, HTML, body=TEXT)) as app:
        await gateway.serve(compressed(app.port))
        answer = await ask(gateway.address, get("/", f"accept-encoding: {coding}"))
        assert answer.value("content-encoding") == coding.encode()
        assert answer.value("content-length") == b"%d" % len(answer.body)
        assert answer.value("vary") == b"accept-encoding"
        assert answer.value("content-type") == b"text/html; charset=utf-8"
        assert decoded(answer) == TEXT
        assert len(answer.body) < len(TEXT) / 10


async def test_the_route_says_which_codings_there_are_and_which_goes_first(gateway: Gateway) -> None:
    async with upstream(response(200, HTML, body=TEXT)) as app:
        await gateway.serve(compressed(app.port, algorithms=["gzip", "br"]))
        assert (await ask(gateway.address, get("/", BROWSER))).value("content-encoding") == b"gzip"
        assert untouched(await ask(gateway.address, get("/", "accept-encoding: zstd")))


@pytest.mark.parametrize(
    "accept", ["", "accept-encoding:", "accept-encoding: identity", "accept-encoding: br;q=0, *;q=0"]
)
async def test_a_client_that_takes_none_gets_it_as_it_is_and_caches_are_told(gateway: Gateway, accept: str) -> None:
    async with upstream(response(200, HTML, 'etag: "a"', body=TEXT)) as app:
        await gateway.serve(compressed(app.port))
        answer = await ask(gateway.address, get("/", *([accept] if accept else [])))
        assert untouched(answer)
        assert answer.value("vary") == b"accept-encoding"
        assert answer.value("etag") == b'"a"'


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (["content-type: image/png"], "it is compressed by itself"),
        ([], "nobody knows what it is"),
        (["content-type: text/event-stream"], "only those who name it want it"),
        ([HTML, "content-encoding: br"], "it is coded already"),
        ([HTML, "cache-control: public, No-Transform"], "its author forbids it"),
    ],
)
async def test_some_responses_are_left_alone(gateway: Gateway, fields: list[str], why: str) -> None:
    async with upstream(response(200, *fields, 'etag: "a"', "accept-ranges: bytes", body=TEXT)) as app:
        await gateway.serve(compressed(app.port))
        answer = await ask(gateway.address, get("/", BROWSER))
        assert answer.body == TEXT, why
        assert answer.value("vary") is None
        assert (answer.value("etag"), answer.value("accept-ranges")) == (b'"a"', b"bytes")


async def test_a_request_can_forbid_it_too(gateway: Gateway) -> None:
    async with upstream(response(200, HTML, body=TEXT)) as app:
        await gateway.serve(compressed(app.port))
        assert untouched(await ask(gateway.address, get("/", BROWSER, "cache-control: no-transform")))


async def test_words_that_only_look_like_no_transform_forbid_nothing(gateway: Gateway) -> None:
    async with upstream(response(200, HTML, 'cache-control: ext="no-transform-ish"', body=TEXT)) as app:
        await gateway.serve(compressed(app.port))
        assert (await ask(gateway.address, get("/", BROWSER))).value("content-encoding") == b"br"


async def test_parts_of_a_body_and_statuses_without_one_are_left_alone(gateway: Gateway) -> None:
    part = response(206, HTML, "content-range: bytes 0-99/10000", body=TEXT)
    async with upstream(part) as app:
        await gateway.serve(compressed(app.port))
        assert untouched(await ask(gateway.address, get("/", BROWSER, "range: bytes=0-99")))
    async with upstream(response(204, HTML, length=False)) as app:
        await gateway.serve(compressed(app.port))
        answer = await ask(gateway.address, get("/", BROWSER))
        assert (answer.status, answer.value("content-encoding"), answer.value("vary")) == (204, None, None)


async def test_errors_are_compressed_like_everything_else(gateway: Gateway) -> None:
    async with upstream(response(404, HTML, body=TEXT)) as app:
        await gateway.serve(compressed(app.port))
        answer = await ask(gateway.address, get("/", BROWSER))
        assert (answer.status, answer.value("content-encoding"), decoded(answer)) == (404, b"br", TEXT)


async def test_small_bodies_are_left_alone_unless_the_client_refuses_them_so(gateway: Gateway) -> None:
    async with upstream(response(200, HTML, body=TEXT)) as app:
        await gateway.serve(compressed(app.port, min_bytes=len(TEXT) + 1))
        answer = await ask(gateway.address, get("/", BROWSER))
        assert untouched(answer)
        assert answer.value("vary") is None
        refusing = await ask(gateway.address, get("/", "accept-encoding: gzip, identity;q=0"))
        assert decoded(refusing) == TEXT
        assert refusing.value("content-encoding") == b"gzip"
        await gateway.serve(compressed(app.port, min_bytes=len(TEXT)))
        assert (await ask(gateway.address, get("/", BROWSER))).value("content-encoding") == b"br"


@pytest.mark.parametrize(
    ("wanted", "given", "taken"),
    [
        (["text/*"], "text/anything", True),
        (["text/*"], "text/event-stream", False),
        (["text/*", "text/event-stream"], "text/event-stream", True),
        (["application/*+json"], "application/problem+json; charset=utf-8", True),
        (["application/*+json"], "application/json", False),
        (["application/json"], "Application/JSON ;charset=utf-8", True),
        (["application/json"], "application/jsonp", False),
    ],
)
async def test_the_route_says_which_types(gateway: Gateway, wanted: list[str], given: str, taken: bool) -> None:
    async with upstream(response(200, f"content-type: {given}", body=TEXT)) as app:
        await gateway.serve(compressed(app.port, content_types=wanted))
        assert ((await ask(gateway.address, get("/", BROWSER))).value("content-encoding") is not None) is taken


async def test_what_told_of_the_bytes_goes_and_the_tag_becomes_a_weak_one(gateway: Gateway) -> None:
    digests = ["content-md5: x", "digest: sha-256=x", "content-digest: sha-256=:x:", "repr-digest: sha-256=:x:"]
    fields = [HTML, 'etag: "v1"', "accept-ranges: bytes", "x-kept: yes", *digests]
    async with upstream(response(200, *fields, body=TEXT)) as app:
        await gateway.serve(compressed(app.port))
        answer = await ask(gateway.address, get("/", BROWSER))
        assert answer.value("etag") == b'W/"v1"'
        assert {"accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"}.isdisjoint(answer.names())
        assert answer.value("x-kept") == b"yes"
        plain = await ask(gateway.address, get("/"))
        assert plain.value("etag") == b'"v1"'
        assert plain.value("content-digest") is not None


async def test_a_tag_that_is_weak_already_stays_as_it_is(gateway: Gateway) -> None:
    async with upstream(response(200, HTML, 'etag: W/"v1"', body=TEXT)) as app:
        await gateway.serve(compressed(app.port))
        assert (await ask(gateway.address, get("/", BROWSER))).value("etag") == b'W/"v1"'


async def test_not_modified_speaks_of_the_tag_that_the_client_was_given(gateway: Gateway) -> None:
    async with upstream(response(304, 'etag: "v1"', length=False)) as app:
        await gateway.serve(compressed(app.port))
        answer = await ask(gateway.address, get("/", BROWSER, 'if-none-match: W/"v1"'))
        assert (answer.status, answer.value("etag"), answer.value("vary")) == (304, b'W/"v1"', b"accept-encoding")
        strong = await ask(gateway.address, get("/", BROWSER, 'if-none-match: "v1"'))
        assert (strong.value("etag"), strong.value("vary")) == (b'"v1"', None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["vary: origin"], [b"origin", b"accept-encoding"]),
        (["vary: Origin, Accept-Encoding"], [b"Origin, Accept-Encoding"]),
        (["vary: *"], [b"*"]),
    ],
)
async def test_vary_is_joined_where_it_does_not_say_so_already(
    gateway: Gateway, given: list[str], told: list[bytes]
) -> None:
    async with upstream(response(200, HTML, *given, body=TEXT)) as app:
        await gateway.serve(compressed(app.port))
        assert (await ask(gateway.address, get("/", BROWSER))).values("vary") == told


async def test_head_is_answered_as_get_would_be_without_a_body(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(b"HTTP/1.1 200 OK\r\n%b\r\ncontent-length: %d\r\n\r\n" % (HTML.encode(), len(TEXT)))

    async with upstream(script) as app:
        await gateway.serve(compressed(app.port))
        async with connected(gateway.address) as client:
            for _ in range(2):  # and the connection goes on in order
                answer = await client.ask(request("HEAD", "/", BROWSER), to="HEAD")
                assert answer.start == b"HTTP/1.1 200 OK"
                assert (answer.value("content-encoding"), answer.value("content-length")) == (b"br", None)
                assert answer.value("vary") == b"accept-encoding"


async def test_the_upstream_may_be_kept_from_compressing_itself(gateway: Gateway) -> None:
    async with upstream(response(200, HTML, body=TEXT)) as app:
        document = compressed(app.port)
        document["routes"][0]["policies"]["headers"] = {"request": {"remove": ["accept-encoding"]}}
        await gateway.serve(document)
        assert (await ask(gateway.address, get("/", BROWSER))).value("content-encoding") == b"br"
        assert app.requests[0].value("accept-encoding") is None


async def test_a_chunked_response_stays_chunked_and_an_old_client_gets_it_until_the_end(gateway: Gateway) -> None:
    head = b"HTTP/1.1 200 OK\r\n%b\r\ntransfer-encoding: chunked\r\n\r\n" % HTML.encode()
    async with upstream(head + chunks([TEXT[:5000], TEXT[5000:]])) as app:
        await gateway.serve(compressed(app.port))
        answer = await ask(gateway.address, get("/", BROWSER))
        assert answer.value("transfer-encoding") == b"chunked"
        assert decoded(answer) == TEXT
        old = await ask(gateway.address, get("/", "accept-encoding: gzip", version="HTTP/1.0"))
        assert (old.value("connection"), old.value("transfer-encoding")) == (b"close", None)
        assert decoded(old) == TEXT


async def test_a_body_until_the_end_of_the_connection_is_compressed_too(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(response(200, HTML, body=TEXT, length=False))

    async with upstream(script) as app:
        await gateway.serve(compressed(app.port))
        assert decoded(await ask(gateway.address, get("/", BROWSER))) == TEXT


@pytest.mark.parametrize("coding", CODINGS)
async def test_each_event_of_a_stream_comes_through_when_it_is_sent(gateway: Gateway, coding: str) -> None:
    """The upstream sends the next one only after the client has read the one before."""
    decoder = Decoder(coding)
    wanted: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        while event := await wanted.get():
            await conversation.send(b"%x\r\n%b\r\n" % (len(event), event))
        await conversation.send(b"0\r\n\r\n")

    async with upstream(script) as app:
        await gateway.serve(compressed(app.port, content_types=["text/event-stream"]))
        async with connected(gateway.address) as client:
            await client.send(get("/", f"accept-encoding: {coding}"))
            assert (await client.head()).value("content-encoding") == coding.encode()
            for number in range(5):
                event = b"data: %d\n\n" % number
                wanted.put_nowait(event)
                assert decoder.feed(await chunk(client)) == event
            wanted.put_nowait(b"")
            decoder.feed(await chunk(client))
            assert decoder.ended
            assert await chunk(client) == b""


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_large_response_streams_through_flat_memory(gateway: Gateway, coding: str) -> None:
    piece = hashlib.sha512(b"x").hexdigest().encode() * 512  # 64 KiB
    pieces = 320

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(
            b"HTTP/1.1 200 OK\r\n%b\r\ncontent-length: %d\r\n\r\n" % (HTML.encode(), pieces * len(piece))
        )
        for _ in range(pieces):
            await conversation.send(piece)

    decoder = Decoder(coding)
    async with upstream(script) as app:
        await gateway.serve(compressed(app.port))
        process = psutil.Process(gateway.pids()[0])
        async with connected(gateway.address) as client:
            await client.send(get("/", f"accept-encoding: {coding}"))
            assert (await client.head()).value("transfer-encoding") == b"chunked"
            before, digest, size = process.memory_info().rss, hashlib.sha256(), 0
            while coded := await chunk(client):
                found = decoder.feed(coded)
                digest.update(found)
                size += len(found)
                client.received.clear()
            assert process.memory_info().rss - before < 8 * MB
        assert size == pieces * len(piece)
        assert digest.digest() == hashlib.sha256(piece * pieces).digest()


async def test_a_body_that_is_cut_off_upstream_is_cut_off_for_the_client(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\n%b\r\ncontent-length: 100000\r\n\r\n" % HTML.encode() + TEXT)

    async with upstream(script) as app:
        await gateway.serve(compressed(app.port))
        async with connected(gateway.address) as client:
            await client.send(get("/", "accept-encoding: gzip"))
            assert (await client.head()).value("content-encoding") == b"gzip"
            with pytest.raises((ConnectionError, AssertionError, EOFError)):
                while await client.some():
                    pass
                raise EOFError if not client.received.endswith(b"0\r\n\r\n") else ValueError("taken for a whole one")


async def test_a_large_body_takes_many_turns_so_that_others_are_served_meanwhile() -> None:
    """All of it is here in one read; between its slices the loop has to turn."""
    body = hashlib.sha512(b"x").hexdigest().encode() * 1600  # 200 KiB
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        plane.loop.call_soon(count)

    async with upstream(response(200, HTML, body=body)) as app, plane_here(compressed(app.port)) as (plane, address):
        async with connected(address) as client:
            await client.send(get("/", "accept-encoding: gzip"))
            plane.loop.call_soon(count)
            answer = await client.response()
        assert decoded(answer) == body
        assert turns >= 4


async def test_the_connection_serves_the_next_request_after_a_sliced_body(gateway: Gateway) -> None:
    body = TEXT * 30
    async with upstream(response(200, HTML, body=body)) as app:
        await gateway.serve(compressed(app.port))
        async with connected(gateway.address) as client:
            await client.send(get("/", "accept-encoding: gzip") * 3)
            for _ in range(3):
                assert decoded(await client.response()) == body
        assert len(app.conversations) == 1


@pytest.mark.parametrize(
    ("compress", "reason"),
    [
        ({"algorithms": ["deflate"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": ["br", "br"]}, "an algorithm stands twice"),
        ({"levels": {"br": 11}}, "levels.br"),
        ({"content_types": ["json"]}, "content_types"),
        ({"min_bytes": -1}, "min_bytes"),
        ({"mode": "all"}, "mode"),
    ],
)
def test_what_is_wrong_is_named(compress: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        snapshot_of(compressed(1, **compress))
    assert reason in str(caught.value.problems[0])
