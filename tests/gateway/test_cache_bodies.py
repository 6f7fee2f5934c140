"""Which bodies are kept: none that is cut off, too long or unframed; and each reaches its client meanwhile."""

import asyncio

import pytest
from toska_tests.cached import FRESH, PLAIN, cached, in_two_parts, reply, unframed
from toska_tests.gateways import Gateway
from toska_tests.raw_http import Conversation, CutOff, ask, connected, upstream

pytestmark = pytest.mark.usefixtures("nothing_stored")


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize("framing", ["content-length: 10", "transfer-encoding: chunked"])
async def test_a_body_that_was_cut_off_is_not_kept(gateway: Gateway, framing: str, end: str) -> None:
    cut = True

    async def script(conversation: Conversation) -> None:
        nonlocal cut
        await conversation.request()
        if cut:
            cut = False
            piece = b"hello" if "length" in framing else b"5\r\nhello\r\n"
            await conversation.send(unframed(framing) + piece)
            if end == "reset":
                conversation.reset()
            return
        await conversation.send(reply(FRESH, body=b"whole"))
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        with pytest.raises((CutOff, ConnectionError)):
            await ask(gateway.address, PLAIN)
        assert (await ask(gateway.address, PLAIN)).body == b"whole"
        assert (await ask(gateway.address, PLAIN)).body == b"whole"
    assert len(app.requests) == 2


async def test_a_body_that_ends_with_its_connection_is_not_kept(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(unframed() + b"hello")

    async with upstream(script) as app:
        await gateway.serve(cached(app.port))
        answers = [await ask(gateway.address, PLAIN) for _ in range(2)]
    assert [answer.body for answer in answers] == [b"hello"] * 2
    assert answers[0].value("cache-status") == b"toska; fwd=uri-miss; detail=unframed; fwd-status=200"
    assert len(app.requests) == 2


async def test_what_a_client_did_not_wait_for_is_not_kept(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async with upstream(in_two_parts(go_on)) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            await client.send(PLAIN)
            await client.until(b"hello")
            client.reset()
        await gateway.until_quiet()
        go_on.set()
        assert (await ask(gateway.address, PLAIN)).body == b"helloworld"
    assert len(app.requests) == 2


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_is_too_long_is_passed_on_and_not_kept(gateway: Gateway, chunked: bool) -> None:
    body = b"x" * 3000
    answer = reply(FRESH, body=body)
    if chunked:
        head = unframed("transfer-encoding: chunked")
        answer = head + b"".join(b"3e8\r\n" + body[:1000] + b"\r\n" for _ in range(3)) + b"0\r\n\r\n"
    async with upstream(answer) as app:
        await gateway.serve(cached(app.port, max_entry_bytes=2000))
        for _ in range(2):
            assert (await ask(gateway.address, PLAIN)).body == body
    assert len(app.requests) == 2


async def test_a_body_reaches_the_client_while_it_is_being_stored(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async with upstream(in_two_parts(go_on)) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            await client.send(PLAIN)
            await client.until(b"hello")
            go_on.set()
            assert await client.exactly(5) == b"world"
        assert (await ask(gateway.address, PLAIN)).body == b"helloworld"
    assert len(app.requests) == 1
