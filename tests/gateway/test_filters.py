"""Operators' filters in the way of requests and responses: what they can do, over real sockets."""

import asyncio
import hashlib
import random
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs
from toska_gateway.errors import RenewalFailed
from toska_tests.codings import decode
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.issuers import SigningKey, jwt_policy
from toska_tests.raw_http import OK, Conversation, CutOff, ask, chunks, connected, get, request, response, upstream
from toska_tests.waiting import wait_until

MB = 1 << 20
UNRULY = Path(__file__).parents[1] / "toska_tests" / "unruly"


@pytest.fixture(scope="module")
async def gateway() -> AsyncGenerator[Gateway]:
    """A gateway that finds the tests' own filters."""
    async with running_gateway(filters=UNRULY) as gateway:
        yield gateway


def filtered(port: int, *filters: Any, **policies: Any) -> dict[str, Any]:
    """Everything to one cluster, past filters of the tests; each a class, or a class with settings."""
    items: list[Any] = [
        f"unruly_filters:{item}"
        if isinstance(item, str)
        else {"use": f"unruly_filters:{item[0]}", "settings": item[1], **(item[2] if len(item) > 2 else {})}
        for item in filters
    ]
    return single(port, policies={"filters": items, **policies})


async def test_requests_pass_filters_in_order_and_responses_in_the_opposite_one(gateway: Gateway) -> None:
    async with upstream(response(200, "x-trace: up-", body=b"ok")) as app:
        await gateway.serve(filtered(app.port, ("Trace", {"name": "a"}), ("SlowTrace", {"name": "b"}), "Trace"))
        answer = await ask(gateway.address, get("/", "x-trace: down-"))
        assert app.requests[0].value("x-trace") == b"down-abx"
        assert answer.value("x-trace") == b"up-xba"
        assert answer.body == b"ok"


async def test_a_filter_sees_the_request_and_can_answer_it(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Tell"))
        answer = await ask(gateway.address, request("POST", "/a%20b/../c?x=%31&y", "X-One: 1", "x-one: 2", body=b"hi"))
        assert (answer.status, answer.value("x-told")) == (201, b"yes")
        told = answer.body.decode().split("\n")
        assert told[:6] == ["POST", "/c", "x=%31&y", "test", "127.0.0.1", "all"]
        assert "x-one=1, 2" in told
        assert "content-length=2" in told
        assert app.requests == []
        head = await ask(gateway.address, request("HEAD"), to="HEAD")
        assert (head.status, head.body) == (201, b"")


async def test_a_response_knows_its_request_as_filters_left_it(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Recall"))
        answer = await ask(gateway.address, get("/", "x-one: 1"))
        assert answer.value("x-recall") == b"host,x-added,x-one"


async def test_a_connection_goes_on_after_a_body_was_refused_that_had_waited(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "SlowTrace", "Fail"))
        async with connected(gateway.address) as client:
            for _ in range(2):
                assert (await client.ask(request("POST", "/", "x-at: request-feed", body=b"a body"))).status == 500
            assert (await client.ask(get())).body == b"ok"


async def test_filters_see_the_claims_of_a_verified_token_and_cannot_change_them(gateway: Gateway) -> None:
    key = SigningKey("ES256")
    await gateway.serve(filtered(1, "Claim", auth={"jwt": jwt_policy(key)}))
    for _ in range(2):  # verified, then remembered
        answer = await ask(gateway.address, get("/", f"authorization: Bearer {key.token(sub='ann')}"))
        assert (answer.status, answer.body) == (200, b"ann")
    assert (await ask(gateway.address, get())).status == 401  # who has none does not come so far


async def test_a_filter_can_refuse_at_every_place(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Refuse"))
        refused = await ask(gateway.address, get("/", "x-at: request"))
        assert (refused.status, refused.error) == (401, "filter-refused")
        assert b"who are you?" in refused.body
        assert refused.value("www-authenticate") == b'Basic realm="shop"'
        assert app.requests == []
        late = await ask(gateway.address, get("/", "x-at: response"))
        assert (late.status, late.error) == (451, "filter-refused")
        assert (await ask(gateway.address, get())).body == b"ok"


async def test_an_upstream_never_gets_the_end_of_a_body_that_a_filter_refuses(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request_head()
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(filtered(app.port, "Refuse"))
        async with connected(gateway.address) as client:
            answer = await client.ask(request("POST", "/", "x-at: body", body=b"a body"))
            assert (answer.status, answer.error) == (422, "filter-refused")
            assert b"this body is wrong" in answer.body
            # All of the request has been read, so the connection goes on.
            assert (await client.ask(request("POST", "/", "x-at: body", body=b"another"))).status == 422
        assert not app.received.endswith(b"0\r\n\r\n")


async def test_a_filter_can_answer_instead_of_the_upstream_and_the_connection_goes_on(gateway: Gateway) -> None:
    async with upstream(response(503, body=b"x" * 500_000)) as app:
        await gateway.serve(filtered(app.port, "Replace"))
        async with connected(gateway.address) as client:
            for _ in range(3):
                answer = await client.ask(get())
                assert (answer.status, answer.body) == (200, b"instead of 503")


async def test_what_comes_while_a_filter_waits_is_kept_in_order(gateway: Gateway) -> None:
    body = bytes(range(256)) * 2000

    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            await conversation.send(response(200, body=message.body))

    async with upstream(script) as app:
        await gateway.serve(filtered(app.port, "SlowTrace"))
        async with connected(gateway.address) as client:
            for coding in ("length", "chunked"):
                if coding == "length":
                    await client.send(request("POST", "/", body=body))
                else:
                    await client.send(request("POST", "/", "transfer-encoding: chunked") + chunks([body[:9], body[9:]]))
                assert (await client.response()).body == body
        assert len(app.conversations) == 1


async def test_pipelined_requests_past_a_filter_that_waits_are_answered_in_order(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            await conversation.send(response(200, body=message.target.encode()))

    async with upstream(script) as app:
        await gateway.serve(filtered(app.port, "SlowTrace"))
        async with connected(gateway.address) as client:
            await client.send(b"".join(get(f"/{number}") for number in range(5)))
            assert [(await client.response()).body for _ in range(5)] == [b"/%d" % number for number in range(5)]


@pytest.mark.parametrize("coding", ["length", "chunked", "close"])
async def test_both_bodies_pass_through_filters_in_any_framing(gateway: Gateway, coding: str) -> None:
    async def script(conversation: Conversation) -> None:
        message = await conversation.request()
        assert message.value("content-digest") is None
        told = b"got " + message.body
        fields = ['etag: "a"', "accept-ranges: bytes", "digest: x"]
        if coding == "chunked":
            head = response(200, "transfer-encoding: chunked", *fields, length=False)
            await conversation.send(head + chunks([told[:2], told[2:]]))
        else:
            await conversation.send(response(200, *fields, body=told, length=coding == "length"))

    sent = request("POST", "/", "content-digest: x", body=b"hello")
    if coding == "chunked":
        sent = request("POST", "/", "content-digest: x", "transfer-encoding: chunked") + chunks([b"he", b"llo"])
    async with upstream(script) as app:
        await gateway.serve(filtered(app.port, "Upper"))
        answer = await ask(gateway.address, sent)
        assert answer.body == b"GOT HELLO!!"
        assert answer.value("etag") == b'W/"a"'
        assert {"accept-ranges", "digest"}.isdisjoint(answer.names())


async def test_messages_without_a_body_are_left_without_one(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            assert message.value("transfer-encoding") is None
            await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")

    async with upstream(script) as app:
        await gateway.serve(filtered(app.port, "Upper"))
        async with connected(gateway.address) as client:
            for _ in range(2):
                answer = await client.ask(request("HEAD"), to="HEAD")
                assert (answer.status, answer.value("content-length")) == (200, None)
    async with upstream(response(304, 'etag: "a"', length=False)) as app:
        await gateway.serve(filtered(app.port, "Upper"))
        async with connected(gateway.address) as client:
            assert [(await client.ask(get())).status for _ in range(2)] == [304, 304]


async def test_a_part_of_a_body_cannot_be_filtered(gateway: Gateway) -> None:
    async with upstream(response(206, "content-range: bytes 0-1/9", body=b"ok")) as app:
        await gateway.serve(filtered(app.port, "Upper"))
        answer = await ask(gateway.address, get("/", "range: bytes=0-1"))
        assert (answer.status, answer.error) == (500, "filter-failed")


async def test_an_instance_lives_on_over_new_routing_that_names_it_alike(gateway: Gateway) -> None:
    async with upstream() as app:
        document = filtered(app.port, "Count")
        await gateway.serve(document)
        await ask(gateway.address, get())
        document["routes"].append({"name": "more", "match": {"path": "/more"}, "respond": {"body": "x"}})
        await gateway.serve(document)
        await ask(gateway.address, get())
        assert [int(one.value("x-count") or 0) for one in app.requests] == [1, 2]
        document["routes"][0]["name"] = "other"
        await gateway.serve(document)
        await ask(gateway.address, get())
        assert app.requests[-1].value("x-count") == b"1"


async def test_the_parent_runs_no_filter_itself(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Trace"))
    assert "unruly_filters" not in sys.modules


async def test_large_bodies_stream_through_filters_in_flat_memory(gateway: Gateway) -> None:
    piece, pieces = b"abcdefgh" * 8192, 400  # 25 MiB
    wanted = hashlib.sha256(piece.upper() * pieces + b"!").digest()
    received: list[bytes] = []

    async def script(conversation: Conversation) -> None:
        message = await conversation.request_head()
        assert message.value("transfer-encoding") == b"chunked"
        digest = hashlib.sha256()
        while size := int((await conversation.until(b"\r\n"))[:-2], 16):
            digest.update((await conversation.exactly(size + 2))[:-2])
            conversation.received.clear()
        await conversation.until(b"\r\n")
        received.append(digest.digest())
        await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * pieces))
        for _ in range(pieces):
            await conversation.send(piece)

    async with upstream(script) as app:
        await gateway.serve(filtered(app.port, "Upper"))
        process = psutil.Process(gateway.pids()[0])
        async with connected(gateway.address) as client:
            await client.send(request("POST", "/", f"content-length: {len(piece) * pieces}"))
            before = process.memory_info().rss
            for _ in range(pieces):
                await client.send(piece)
            assert (await client.head()).value("transfer-encoding") == b"chunked"
            digest = hashlib.sha256()
            while size := int((await client.until(b"\r\n"))[:-2], 16):
                digest.update((await client.exactly(size + 2))[:-2])
                client.received.clear()
            assert process.memory_info().rss - before < 8 * MB
    assert received == [wanted]
    assert digest.digest() == wanted


async def test_what_filters_make_of_a_body_is_compressed_and_the_upstream_is_asked_as_they_say(
    gateway: Gateway,
) -> None:
    async with upstream(response(200, "content-type: text/plain", body=b"word " * 1000)) as app:
        await gateway.serve(filtered(app.port, "Upper", compress={}))
        answer = await ask(gateway.address, get("/", "accept-encoding: br"))
        assert decode("br", answer.body) == b"WORD " * 1000 + b"!"


async def test_the_cache_tells_responses_apart_by_what_a_filter_says(gateway: Gateway) -> None:
    """One tenant must never get from the cache what was for another, also if the upstream forgets to say Vary."""

    async def script(conversation: Conversation) -> None:
        while True:
            tenant = (await conversation.request()).value("x-tenant") or b""
            await conversation.send(response(200, "cache-control: max-age=60", body=tenant))

    async with upstream(script) as app:
        await gateway.serve(filtered(app.port, "Tenant", cache={}))
        served = [(await ask(gateway.address, get("/", f"x-who: {who}"))).body for who in "abab"]
        assert served == [b"a", b"b", b"a", b"b"]
        assert len(app.requests) == 2


async def test_filters_see_responses_of_the_cache_too(gateway: Gateway) -> None:
    async with upstream(response(200, "cache-control: max-age=60", body=b"kept")) as app:
        await gateway.serve(
            filtered(app.port, "Upper", ("Trace", {"name": "t"}), ("SlowTrace", {"name": "s"}), cache={})
        )
        for _ in range(3):
            answer = await ask(gateway.address, get())
            assert (answer.body, answer.value("x-trace")) == (b"KEPT!", b"st")
        assert len(app.requests) == 1


@pytest.mark.parametrize("seed", range(6))
async def test_bodies_come_through_waits_slices_filters_and_codings_in_order(gateway: Gateway, seed: int) -> None:
    chance = random.Random(seed)
    coding = chance.choice(["br", "zstd", "gzip"])
    answers = [
        [chance.randbytes(2) * chance.choice([1, 50, 5000, 40_000, 150_000]) for _ in range(chance.randint(1, 8))]
        for _ in range(4)
    ]

    async def script(conversation: Conversation) -> None:
        for pieces in answers:
            await conversation.request()
            body = b"".join(pieces)
            if chance.random() < 0.5:
                await conversation.send(response(200, "content-type: text/plain", body=body))
                continue
            head = response(200, "content-type: text/plain", "transfer-encoding: chunked", length=False)
            await conversation.send(head + chunks(pieces[:1])[: -len(b"0\r\n\r\n")])
            for piece in pieces[1:]:
                await conversation.send(chunks([piece])[: -len(b"0\r\n\r\n")])
            await conversation.send(b"0\r\n\r\n")

    async with upstream(script) as app:
        await gateway.serve(filtered(app.port, ("SlowTrace", {"name": "s"}), "Upper", compress={"min_bytes": 0}))
        async with connected(gateway.address, window=chance.choice([0, 4096])) as client:
            await client.send(get("/", f"accept-encoding: {coding}") * len(answers))
            for pieces in answers:
                answer = await client.response()
                assert answer.value("content-encoding") == coding.encode()
                assert decode(coding, answer.body) == b"".join(pieces).upper() + b"!"
                client.received.clear()


async def test_new_code_is_loaded_by_renewing_workers_and_broken_code_is_not(tmp_path: Path) -> None:
    def write(text: str) -> None:
        (tmp_path / "edited_filters.py").write_text(
            "from toska_common.filters import Filter\n"
            "class Edited(Filter):\n"
            "    def on_request(self, request):\n"
            f"        request.headers['x-edited'] = {text}\n",
            encoding="utf-8",
        )

    write("'old'")
    async with upstream() as app, running_gateway(filters=tmp_path) as gateway:
        await gateway.serve(single(app.port, policies={"filters": ["edited_filters:Edited"]}))
        await ask(gateway.address, get())
        write("'new and longer'")
        await ask(gateway.address, get())
        with capture_logs() as logs:
            await gateway.supervisor.renew()
            await ask(gateway.address, get())
            await wait_until(lambda: any(line["event"] == "gateway_worker_left" for line in logs))
        assert [line["exit_code"] for line in logs if line["event"] == "gateway_worker_left"] == [0]
        assert [one.value("x-edited") for one in app.requests] == [b"old", b"old", b"new and longer"]
        write("(")
        with pytest.raises(RenewalFailed) as caught:
            await gateway.supervisor.renew()
        assert "SyntaxError" in str(caught.value)
        await ask(gateway.address, get())
        assert app.requests[-1].value("x-edited") == b"new and longer"


async def test_a_client_that_leaves_ends_what_its_request_waits_for(gateway: Gateway, tmp_path: Path) -> None:
    note = tmp_path / "note"
    async with upstream() as app:
        await gateway.serve(filtered(app.port, ("Hang", {"path": str(note)}, {"timeout": "30s"})))
        for at in ("request", "response"):
            async with connected(gateway.address) as client:
                await client.send(get("/", f"x-at: {at}"))
                await wait_until(lambda: note.exists() and note.read_text() == "waiting", what=f"waiting at {at}")
                client.reset()  # (a half-closed connection still wants its answer)
            await wait_until(lambda: note.read_text() == "cancelled", what=f"cancelled at {at}")
        await gateway.until_quiet()
        assert await gateway.metric("filter_faults_total", filter="unruly_filters:Hang") == 0
        assert (await ask(gateway.address, get())).body == b"ok"


async def test_filters_are_told_of_bodies_that_were_broken_off(gateway: Gateway, tmp_path: Path) -> None:
    note = tmp_path / "note"

    async def script(conversation: Conversation) -> None:
        await conversation.request_head()
        if await cut.get() == "response":
            await conversation.chunked()
            await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it")
            conversation.reset()
        await conversation.until_closed()

    def noted(*lines: str) -> bool:
        return note.exists() and note.read_text().split("\n")[:-1] == list(lines)

    cut: asyncio.Queue[str] = asyncio.Queue()
    async with upstream(script) as app:
        await gateway.serve(filtered(app.port, ("NoteAborts", {"path": str(note)})))
        async with connected(gateway.address) as client:
            await client.send(request("POST", "/", "content-length: 100") + b"half of it")
            cut.put_nowait("request")
            await wait_until(lambda: bool(app.requests))
            client.reset()
        await wait_until(lambda: noted("request aborted"))
        cut.put_nowait("response")
        async with connected(gateway.address) as client:
            await client.send(request("POST", "/", body=b"all of it"))
            with pytest.raises((CutOff, ConnectionError, EOFError)):
                await client.response()
        await wait_until(lambda: noted("request aborted", "request finished", "response aborted"))


async def test_other_requests_are_served_while_one_waits_for_a_filter(gateway: Gateway, tmp_path: Path) -> None:
    async with upstream(OK) as app:
        await gateway.serve(filtered(app.port, ("Hang", {"path": str(tmp_path / "note")}, {"timeout": "30s"})))
        async with connected(gateway.address) as waiting:
            await waiting.send(get("/", "x-at: request"))
            await asyncio.wait_for(ask(gateway.address, get()), 20)
