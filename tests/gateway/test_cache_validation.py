"""Stored responses that are asked about again, and those that a change ends."""

import pytest
from toska_tests.cached import FRESH, PLAIN, STALE, by_method, cached, reply
from toska_tests.gateways import Gateway, running_gateway
from toska_tests.raw_http import OK, Message, Script, answering, ask, connected, get, request, upstream
from toska_tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("nothing_stored")


def validating(etag: str = '"v1"', control: str = "max-age=60") -> Script:
    """First stale; then 304 to whoever shows the etag."""

    def say(message: Message) -> bytes:
        if message.value("if-none-match") == etag.encode():
            return f"HTTP/1.1 304 Not Modified\r\netag: {etag}\r\ncache-control: {control}\r\nx-a: new\r\n\r\n".encode()
        return reply("cache-control: max-age=60", "age: 70", f"etag: {etag}", "x-a: old")

    return by_method(say)


async def test_what_is_stale_is_validated_and_fresh_again(gateway: Gateway) -> None:
    async with upstream(validating()) as app:
        await gateway.serve(cached(app.port))
        first, second, third = [await ask(gateway.address, PLAIN) for _ in range(3)]
    assert first.value("x-a") == b"old"
    assert (second.status, second.body, second.value("x-a")) == (200, b"hello", b"new")
    assert (second.value("cache-status") or b"").startswith(b"toska; fwd=stale; fwd-status=304; ttl=")
    assert (third.body, third.value("x-a")) == (b"hello", b"new")
    assert (third.value("cache-status") or b"").startswith(b"toska; hit")
    assert len(app.requests) == 2


async def test_a_clients_own_validators_are_held_against_what_was_validated(gateway: Gateway) -> None:
    async with upstream(validating()) as app:
        await gateway.serve(cached(app.port))
        await ask(gateway.address, PLAIN)
        other = await ask(gateway.address, get("/", 'If-None-Match: "v0"', "Range: bytes=0-1", 'If-Range: "v1"'))
        assert app.requests[1].value("if-none-match") == b'"v1"'
        assert app.requests[1].value("range") is None
        assert (other.status, other.body) == (206, b"he")
        same = await ask(gateway.address, get("/", 'If-None-Match: "v1"', "Cache-Control: no-cache"))
        assert same.status == 304


async def test_what_has_changed_takes_the_place_of_what_was_stored(gateway: Gateway) -> None:
    async with upstream(answering(reply(*STALE), reply(FRESH, body=b"news"))) as app:
        await gateway.serve(cached(app.port))
        async with connected(gateway.address) as client:
            assert [(await client.ask(PLAIN)).body for _ in range(3)] == [b"hello", b"news", b"news"]
    assert app.requests[1].value("if-none-match") == b'"v1"'


async def test_no_cache_is_validated_each_time(gateway: Gateway) -> None:
    async with upstream(validating(control="no-cache, max-age=60")) as app:
        await gateway.serve(cached(app.port))
        for _ in range(3):
            assert (await ask(gateway.address, PLAIN)).body == b"hello"
    assert [message.value("if-none-match") for message in app.requests] == [None, b'"v1"', b'"v1"']


async def test_a_validation_that_forbids_keeping_ends_it(gateway: Gateway) -> None:
    async with upstream(validating(control="no-store")) as app:
        await gateway.serve(cached(app.port))
        for _ in range(3):
            assert (await ask(gateway.address, PLAIN)).body == b"hello"
    assert [message.value("if-none-match") for message in app.requests] == [None, b'"v1"', None]


# -- invalidation


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    ("status", "gone"), [("200 OK", True), ("303 See Other", True), ("400 Bad", False), ("500 No", False)]
)
async def test_an_unsafe_request_that_succeeds_ends_what_is_stored(
    gateway: Gateway, method: str, status: str, gone: bool
) -> None:
    def say(message: Message) -> bytes:
        return reply(FRESH) if message.method == "GET" else reply(status=status)

    async with upstream(by_method(say)) as app:
        await gateway.serve(cached(app.port))
        for message in (PLAIN, request(method), PLAIN):
            await ask(gateway.address, message)
    assert len(app.requests) == (3 if gone else 2)


async def test_an_unsafe_request_ends_also_what_its_answer_points_to_if_it_is_of_the_same_origin(
    gateway: Gateway,
) -> None:
    def say(message: Message) -> bytes:
        if message.method == "GET":
            return reply(FRESH)
        return reply("location: /new?a=1", "content-location: http://other/kept", status="201 Created")

    async with upstream(by_method(say)) as app:
        await gateway.serve(cached(app.port))
        stored = [get("/new?a=1"), get("/kept", host="other"), get("/also")]
        for message in (*stored, request("POST", "/here"), *stored):
            await ask(gateway.address, message)
    assert [message.target for message in app.requests[4:]] == ["/new?a=1"]


async def test_every_variant_is_ended_and_in_every_worker() -> None:
    def say(message: Message) -> bytes:
        return reply(FRESH, "vary: x-a") if message.method == "GET" else OK

    async with upstream(by_method(say)) as app, running_gateway(workers=2) as gateway:
        await gateway.serve(cached(app.port))
        connections = [await ask_until_both(gateway, value) for value in ("1", "2")]
        assert sum(connections) >= 4
        assert await gateway.metric("cache_entries") == 4
        await ask(gateway.address, request("POST"))

        async def gone() -> bool:
            return await gateway.metric("cache_entries") == 0

        await wait_until(gone, what="both workers have forgotten")


async def ask_until_both(gateway: Gateway, value: str) -> int:
    """Ask until both workers have stored their response."""
    before, asked = await gateway.metric("cache_entries"), 0
    while await gateway.metric("cache_entries") < before + 2:
        assert (await ask(gateway.address, get("/", f"X-A: {value}"))).status == 200
        asked += 1
        assert asked < 500
    return asked
