"""Mirroring: copies reach the shadow as they were sent, and nothing of a shadow ever reaches the client."""

import random
import time
from typing import Any

import pytest
from toska_tests.gateways import Gateway, cluster, plane_here
from toska_tests.raw_http import (
    OK,
    Conversation,
    Message,
    ask,
    black_hole,
    chunks,
    connected,
    get,
    request,
    response,
    upstream,
)
from toska_tests.waiting import in_time, wait_until

ALL_METHODS = ["GET", "HEAD", "POST", "PUT"]


def mirrored(port: int, shadow: int, name: str = "shadow", **mirror: Any) -> dict[str, Any]:
    policies = {"mirror": {"cluster": name, **mirror}}
    return {
        "clusters": {"app": cluster(port), name: cluster(shadow)},
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "to": "app", "policies": policies}],
    }


async def arrived(requests: list[Message], count: int) -> None:
    await wait_until(lambda: len(requests) >= count, what=f"{count} copies have arrived")


async def test_a_copy_is_the_request_with_a_mark(gateway: Gateway) -> None:
    async with upstream() as app, upstream(response(200, body=b"shadow")) as shadow:
        await gateway.serve(mirrored(app.port, shadow.port))
        answer = await ask(gateway.address, get("/a%20b?x=1", "X-A: 1", "Cookie: a=b", host="shop.example"))
        await arrived(shadow.requests, 1)
    assert answer.body == b"ok"
    [original], [copy] = app.requests, shadow.requests
    assert copy.start == original.start == b"GET /a%20b?x=1 HTTP/1.1"
    assert copy.fields == [*original.fields, (b"x-toska-mirror", b"true")]
    assert copy.value("host") == b"shop.example"
    assert original.value("x-toska-mirror") is None


@pytest.mark.parametrize("chunked", [True, False])
async def test_bodies_are_copied_whole(gateway: Gateway, chunked: bool) -> None:
    body = bytes(range(256)) * 200
    message = request("POST", body=body)
    if chunked:
        message = request("POST", "/", "Transfer-Encoding: chunked") + chunks([body[:10], body[10:]])
    async with upstream() as app, upstream() as shadow:
        await gateway.serve(mirrored(app.port, shadow.port, methods=ALL_METHODS))
        async with connected(gateway.address) as client:
            assert (await client.ask(message)).status == 200
            assert (await client.ask(request("POST", body=b""))).status == 200
        await wait_until(lambda: len(shadow.requests) == 2 and shadow.conversations != [], what="copies have arrived")
        await wait_until(lambda: body in [copy.body for copy in shadow.requests], what="the body has arrived")
    assert {copy.body for copy in shadow.requests} == {body, b""}
    assert [sent.body for sent in app.requests] == [body, b""]


async def test_the_original_is_framed_as_it_came(gateway: Gateway) -> None:
    async with upstream() as app, upstream() as shadow:
        await gateway.serve(mirrored(app.port, shadow.port, methods=ALL_METHODS))
        assert (await ask(gateway.address, request("POST", body=b"four"))).status == 200
        await arrived(shadow.requests, 1)
    assert app.requests[0].value("content-length") == b"4"
    assert app.requests[0].value("transfer-encoding") is None


async def test_only_methods_that_do_nothing_twice_are_copied_unless_others_are_named(gateway: Gateway) -> None:
    async with upstream() as app, upstream() as shadow:
        await gateway.serve(mirrored(app.port, shadow.port))
        for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "GET"):
            assert (await ask(gateway.address, request(method), to=method)).status == 200
        await arrived(shadow.requests, 3)
    assert sorted(copy.method for copy in shadow.requests) == ["GET", "HEAD", "OPTIONS"]


async def test_a_longer_body_than_may_be_kept_is_not_copied(gateway: Gateway) -> None:
    async with upstream() as app, upstream() as shadow:
        await gateway.serve(mirrored(app.port, shadow.port, methods=ALL_METHODS, max_body_bytes=1000))
        before = await gateway.metric("mirror_skipped_total")
        long = bytes(1001)
        for message in (
            request("POST", body=long),
            request("POST", "/", "Transfer-Encoding: chunked") + chunks([long[:600], long[600:]]),
            request("POST", body=long[1:]),
        ):
            assert (await ask(gateway.address, message)).status == 200
        await arrived(shadow.requests, 1)
        assert await gateway.metric("mirror_skipped_total") == before + 2
    assert [len(sent.body) for sent in app.requests] == [1001, 1001, 1000]
    assert [len(copy.body) for copy in shadow.requests] == [1000]


async def silent(conversation: Conversation) -> None:
    """Takes requests and never answers."""
    while True:
        await conversation.request()


async def garbage(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(b"SSH-2.0-OpenSSH\r\n\r\n")


async def breaking(conversation: Conversation) -> None:
    await conversation.request()
    conversation.reset()


@pytest.mark.parametrize("script", [silent, garbage, breaking, response(500)])
async def test_a_shadow_that_fails_is_no_matter_of_the_routes(gateway: Gateway, script: Any) -> None:
    async with upstream() as app, upstream(script) as shadow:
        await gateway.serve(mirrored(app.port, shadow.port, timeout="200ms" if script is silent else "20s"))
        failures = await gateway.metric("mirror_failures_total")
        async with connected(gateway.address) as client:
            for _ in range(5):
                assert (await client.ask(get())).body == b"ok"
        expected = failures + (0 if isinstance(script, bytes) else 5)

        async def told() -> bool:
            return await gateway.metric("mirror_failures_total") == expected and await gateway.active() == 0

        await wait_until(told, what="the failures are counted and nothing is left in flight")
        assert await gateway.metric("requests_total", route="all", status="502") == 0


async def test_a_shadow_that_cannot_be_reached_delays_nobody(gateway: Gateway) -> None:
    with black_hole() as port:
        async with upstream() as app:
            await gateway.serve(mirrored(app.port, port, "nowhere"))

            async def undelayed() -> None:
                async with connected(gateway.address) as client:
                    for _ in range(20):
                        assert (await client.ask(get())).status == 200

            await in_time(undelayed, limit_s=1.5)  # (a connection is tried for two seconds)


async def test_copies_under_way_are_bounded_and_those_beyond_are_left_out(gateway: Gateway) -> None:
    async with upstream() as app, upstream(silent) as shadow:
        await gateway.serve(mirrored(app.port, shadow.port, max_in_flight=3, timeout="500ms"))

        async def free() -> bool:
            return await gateway.active() == 0

        async def bounded() -> bool:
            skipped = await gateway.metric("mirror_skipped_total")
            begun = time.monotonic()
            async with connected(gateway.address) as client:
                for _ in range(10):
                    assert (await client.ask(get())).status == 200
            left_out = await gateway.metric("mirror_skipped_total") - skipped
            before_one_is_given_up = time.monotonic() - begun < 0.5
            assert left_out == 7 or not before_one_is_given_up
            await wait_until(free, what="the copies have been given up")
            return before_one_is_given_up

        await wait_until(bounded, what="ten requests while three copies are under way")
        await arrived(shadow.requests, 3)
        await wait_until(bounded, what="the same again")


async def test_an_endless_answer_of_the_shadow_is_given_up(gateway: Gateway) -> None:
    async def endless(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await conversation.send(bytes(65536))

    async with upstream() as app, upstream(endless) as shadow:
        await gateway.serve(mirrored(app.port, shadow.port, timeout="200ms"))

        async def given() -> bool:
            assert (await ask(gateway.address, get())).body == b"ok"
            return bool(shadow.requests)

        await wait_until(given, what="a copy that is not given up before it is sent")
        await gateway.until_quiet()


async def test_a_shadow_that_has_all_the_requests_it_may_have_is_left_alone() -> None:
    async with upstream() as app, upstream(silent) as shadow:
        document = mirrored(app.port, shadow.port)
        document["clusters"]["shadow"]["limits"] = {"max_requests": 2}
        async with plane_here(document) as (plane, address), connected(address) as client:
            for _ in range(5):
                assert (await client.ask(get())).status == 200
            assert (plane.stats.mirrored, plane.stats.mirror_skipped) == (2, 3)
            await arrived(shadow.requests, 2)
            for conversation in shadow.conversations:
                conversation.reset()  # or the plane waits for what is never answered


async def test_connections_to_the_shadow_are_kept_and_bounded(gateway: Gateway) -> None:
    async with upstream() as app, upstream() as shadow:
        document = mirrored(app.port, shadow.port)
        document["clusters"]["shadow"]["limits"] = {"max_connections": 1}
        await gateway.serve(document)
        async with connected(gateway.address) as client:
            for number in range(1, 6):
                assert (await client.ask(get())).status == 200
                await arrived(shadow.requests, number)

                async def quiet() -> bool:
                    return await gateway.active() == 0

                await wait_until(quiet, what="the copy's answer has been read")
    assert len(shadow.conversations) == 1


async def test_a_request_that_never_becomes_whole_leaves_nothing_behind(gateway: Gateway) -> None:
    async with upstream() as app, upstream() as shadow:
        await gateway.serve(mirrored(app.port, shadow.port, methods=ALL_METHODS, max_in_flight=1))
        async with connected(gateway.address) as client:
            await client.send(request("POST", "/", "Content-Length: 10") + b"half")
            await wait_until(lambda: app.requests != [], what="the original has begun")
            client.reset()
        await gateway.until_quiet()
        assert (await ask(gateway.address, request("POST", body=b"whole"))).status == 200
        await arrived(shadow.requests, 1)
    assert [copy.body for copy in shadow.requests] == [b"whole"]


async def test_an_original_that_fails_is_copied_all_the_same(gateway: Gateway) -> None:
    async with upstream() as shadow:
        await gateway.serve(mirrored(1, shadow.port))
        assert (await ask(gateway.address, get())).error == "upstream-connect-failed"
        await arrived(shadow.requests, 1)


async def test_a_request_that_a_gate_answers_is_not_copied(gateway: Gateway) -> None:
    async with upstream() as app, upstream() as shadow:
        document = mirrored(app.port, shadow.port)
        document["routes"][0]["policies"]["rate_limit"] = {"requests": 2, "per": "1h"}
        await gateway.serve(document)
        statuses = [(await ask(gateway.address, get())).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        await arrived(shadow.requests, 2)
        assert await gateway.active() == 0
    assert len(shadow.requests) == 2


async def test_upgrades_are_not_copied(gateway: Gateway) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    async with upstream(switch) as app, upstream() as shadow:
        document = mirrored(app.port, shadow.port)
        document["routes"][0]["policies"]["upgrade"] = ["websocket"]
        await gateway.serve(document)
        assert (await ask(gateway.address, get("/", "Connection: upgrade", "Upgrade: websocket"))).status == 101
    assert shadow.requests == []


async def test_a_shadow_with_an_open_circuit_is_left_alone() -> None:
    breaker = {"failure_ratio": 0.5, "min_requests": 1, "window": "10s", "cooldown": "60s", "half_open_requests": 1}
    async with upstream() as app, upstream(OK) as shadow:
        document = mirrored(app.port, shadow.port)
        document["clusters"]["shadow"]["breaker"] = breaker
        async with plane_here(document) as (plane, address):
            circuit = plane.clusters["shadow"].breaker
            assert circuit is not None
            circuit.fail(circuit.admit(plane.now), plane.now)
            assert (await ask(address, get())).status == 200
            assert plane.stats.mirror_skipped == 1
    assert shadow.requests == []


async def test_as_many_requests_are_copied_as_the_share_says() -> None:
    async with upstream() as app, upstream() as shadow:
        random.seed(7)
        async with plane_here(mirrored(app.port, shadow.port, percent=20)) as (plane, address):
            async with connected(address) as client:
                for _ in range(1000):
                    assert (await client.ask(get())).status == 200
            copied = plane.stats.mirrored + plane.stats.mirror_skipped
            await wait_until(lambda: plane.clusters["shadow"].endpoints[f"127.0.0.1:{shadow.port}"].in_flight == 0)
            assert plane.stats.mirror_failures == 0
    assert 124 <= copied <= 276  # six standard deviations
