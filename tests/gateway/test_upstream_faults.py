"""Upstreams that are away, die, are slow or half-hearted, and clients that leave: nobody else may notice."""

import asyncio
import socket
from collections import Counter
from typing import Any

import pytest
from toska_common.targets import TargetRules
from toska_gateway.worker.connector import Connector
from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.plane import Plane
from toska_tests.gateways import Gateway, cluster, plane_here, route, single
from toska_tests.ports import free_port
from toska_tests.raw_http import (
    OK,
    Client,
    Conversation,
    CutOff,
    Upstream,
    answering,
    ask,
    black_hole,
    chunks,
    connected,
    get,
    request,
    resetting,
    upstream,
)
from toska_tests.waiting import unless_late, wait_until

EJECTION = {"outlier": {"base_ejection": "500ms", "max_ejection": "500ms"}}
"""Short, so that a test can see an endpoint return."""
FREE_RETRY = {"retry": {"budget": 1, "budget_floor": 10_000}}
FREELY: dict[str, Any] = {"policies": FREE_RETRY}
"""Every failed request is tried again, however many there are."""


async def test_a_dead_endpoint_costs_no_request_and_is_back_when_it_lives_again(gateway: Gateway) -> None:
    port = free_port()
    async with upstream() as app:
        document = {"clusters": {"app": cluster(app.port, port, balancer="round_robin", **EJECTION)}}

        async def left_out() -> None:
            await gateway.serve({})
            await gateway.serve({**document, "routes": [route("r")]})
            ejections = await gateway.metric("ejections_total")
            for _ in range(6):
                assert (await ask(gateway.address, get())).status == 200
            assert await gateway.metric("ejections_total") == ejections + 1
            assert await gateway.metric("endpoint_ejected", endpoint=f"127.0.0.1:{port}") == 1

        await unless_late(left_out, limit_s=0.45)
        async with upstream(port=port) as back:

            async def answered() -> bool:
                assert (await ask(gateway.address, get())).status == 200
                return bool(back.requests)

            await wait_until(answered, what="the endpoint has a request again")
            assert await gateway.metric("endpoint_ejected", endpoint=f"127.0.0.1:{port}") == 0


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("coding", ["none", "length", "chunked"])
async def test_a_request_whose_connect_fails_goes_elsewhere_with_its_body(
    gateway: Gateway, method: str, coding: str
) -> None:
    message = {
        "none": request(method),
        "length": request(method, body=b"hello"),
        "chunked": request(method, "/", "transfer-encoding: chunked") + chunks([b"hel", b"lo"]),
    }[coding]
    async with upstream() as app:
        for _ in range(2):
            endpoints = cluster(free_port(), app.port, balancer="round_robin")
            await gateway.serve({"clusters": {"app": endpoints}, "routes": [route("r", **FREELY)]})
            for _ in range(2):
                assert (await ask(gateway.address, message)).status == 200
        assert [message.method for message in app.requests] == [method] * 4
        assert {message.body for message in app.requests} == {b"" if coding == "none" else b"hello"}


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("GET", None, 200),
        ("HEAD", None, 200),
        ("OPTIONS", None, 200),
        ("DELETE", None, 200),
        ("PUT", b"hello", 200),
        ("POST", b"hello", 502),
        ("PATCH", b"hello", 502),
        ("POST", None, 502),
    ],
)
async def test_only_what_may_be_done_twice_is_sent_again_after_a_reset(
    gateway: Gateway, method: str, body: bytes | None, status: int
) -> None:
    async with upstream(resetting) as bad, upstream() as good:
        app = cluster(bad.port, good.port, balancer="round_robin")
        await gateway.serve({"clusters": {"app": app}, "routes": [route("r", **FREELY)]})
        answers = [await ask(gateway.address, request(method, body=body), to=method) for _ in range(2)]
        assert sorted(answer.status for answer in answers) == [200, status]
        assert {answer.error for answer in answers if answer.status == 502} <= {"upstream-reset"}
        assert 1 <= len(bad.requests) <= 2  # (a second attempt takes a turn, too)
        assert all(message.body == (body or b"") for message in good.requests)


async def test_a_body_too_large_to_be_held_is_not_sent_again(gateway: Gateway) -> None:
    async with upstream(resetting) as bad, upstream() as good:
        await gateway.serve({"clusters": {"app": cluster(bad.port)}, "routes": [route("r")]})
        body = b"x" * 200_000
        answer = await ask(gateway.address, request("PUT", body=body))
        assert (answer.status, answer.error) == (502, "upstream-reset")
        await gateway.serve({"clusters": {"app": cluster(good.port)}, "routes": [route("r")]})
        assert (await ask(gateway.address, request("PUT", body=body))).status == 200
        assert good.requests[0].body == body


async def test_a_retry_can_be_switched_off(gateway: Gateway) -> None:
    async with upstream(resetting) as bad, upstream() as good:
        endpoints = cluster(bad.port, good.port, balancer="round_robin")
        for retry in ({"attempts": 1}, {"retry_on": ["connect"]}):
            await gateway.serve({"clusters": {"app": endpoints}, "routes": [route("r", policies={"retry": retry})]})
            assert sorted([(await ask(gateway.address, get())).status for _ in range(2)]) == [200, 502]


async def test_an_upstream_that_accepts_and_closes_is_a_failure_and_no_hang(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        conversation.reset()

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        for method in ("GET", "POST"):
            async with asyncio.timeout(20):
                answer = await ask(gateway.address, request(method))
            assert answer.status == 502
            assert answer.error in ("upstream-reset", "upstream-connect-failed")  # whichever is noticed first
    assert await gateway.active() == 0


async def test_an_upstream_that_is_away_is_reported(gateway: Gateway) -> None:
    await gateway.serve(single(free_port()))
    answer = await ask(gateway.address, get())
    assert (answer.status, answer.error) == (502, "upstream-connect-failed")
    assert answer.value("retry-after") == b"5"  # when its ejection ends


async def test_when_to_come_again_is_said_only_where_it_is_known(gateway: Gateway) -> None:
    async with upstream(resetting) as app:
        await gateway.serve(single(app.port))
        answer = await ask(gateway.address, request("POST", body=b"x"))
        assert (answer.status, answer.value("retry-after")) == (502, None)


async def test_a_cluster_without_endpoints_is_unavailable(gateway: Gateway) -> None:
    await gateway.serve({"clusters": {"app": {"service": "orders"}}, "routes": [route("r")]})
    async with connected(gateway.address) as client:
        for _ in range(2):
            answer = await client.ask(get())
            assert (answer.status, answer.error) == (503, "upstream-unavailable")


async def test_a_connect_that_takes_too_long_goes_elsewhere_or_times_out(gateway: Gateway) -> None:
    with black_hole() as port:
        policies = {"connect_timeout": "200ms"}
        await gateway.serve(single(port, policies=policies))
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.error) == (504, "upstream-timeout")
        async with upstream() as app:
            await gateway.serve(single(port, app.port, policies=policies))
            for _ in range(6):
                assert (await ask(gateway.address, request("POST", body=b"x"))).status == 200


async def test_connections_that_the_upstream_closed_while_idle_are_not_used_again(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(OK)

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies=FREE_RETRY))
        async with connected(gateway.address) as client:
            for number in range(1, 20):
                # Not idempotent, so a connection that has been closed would show.
                assert (await client.ask(request("POST", body=b"x"))).status in {200, 502}
                await wait_until(lambda n=number: len(app.conversations) >= n)

            async def all_closed() -> bool:
                return await gateway.metric("endpoint_idle_connections") == 0

            await wait_until(all_closed, what="the last close has arrived")
            assert (await client.ask(request("POST", body=b"x"))).status == 200


async def test_a_second_attempt_takes_no_other_connection_that_may_be_just_as_dead(gateway: Gateway) -> None:
    """As after a restart of the only endpoint, or behind a device that forgets connections."""
    all_here = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await all_here.wait()
        await conversation.send(OK)
        await conversation.request()
        conversation.reset()

    async with upstream(script) as app:
        await gateway.serve(single(app.port, policies=FREE_RETRY))
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(ask(gateway.address, get()))
            await wait_until(lambda: len(app.requests) == 5)
            all_here.set()
        assert (await ask(gateway.address, get())).status == 200
        assert len(app.conversations) == 6


async def test_an_upstream_that_restarts_costs_no_idempotent_request(gateway: Gateway) -> None:
    port = free_port()
    app = Upstream(answering(OK))
    await app.open(port)
    await gateway.serve(single(port, policies=FREE_RETRY))
    async with connected(gateway.address) as client:
        for _ in range(10):
            assert (await client.ask(get())).status == 200
            await app.stop()
            await app.open(port)
    await app.aclose()


async def test_an_endpoint_killed_under_load_costs_no_idempotent_request(gateway: Gateway) -> None:
    counts: Counter[int | str] = Counter()
    stop = asyncio.Event()

    async def load() -> None:
        async with connected(gateway.address) as client:
            while not stop.is_set():
                answer = await client.ask(get())
                counts[answer.error or answer.status] += 1

    async with upstream() as one, upstream() as other:
        await gateway.serve(single(one.port, other.port))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(load())
            await wait_until(lambda: counts[200] > 400)
            await one.stop()
            seen = len(other.requests)
            await wait_until(lambda: len(other.requests) > seen + 400)
            stop.set()
    assert set(counts) == {200}


@pytest.mark.parametrize("phase", ["connecting", "waiting", "responding", "sending", "upgrading"])
async def test_a_client_that_leaves_leaves_nothing_behind(gateway: Gateway, phase: str) -> None:
    gone = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        try:
            await conversation.request_head()
            if phase == "responding":
                await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
            await conversation.until_closed()
        finally:
            gone.set()

    message = {
        "sending": request("POST", "/", "content-length: 10") + b"hello",
        "upgrading": get("/", "connection: upgrade", "upgrade: websocket"),
    }.get(phase, get())
    with black_hole() as hole:
        async with upstream(script) as app:
            port = hole if phase == "connecting" else app.port
            await gateway.serve(single(port, policies={"upgrade": ["websocket"], "connect_timeout": "500ms"}))
            async with connected(gateway.address) as client:
                await client.send(message)
                if phase == "responding":
                    await client.head()
                elif phase == "connecting":
                    await until_active(gateway, 1)
                else:
                    await wait_until(lambda: bool(app.requests))
                client.reset()
            await gateway.until_quiet()
            if phase != "connecting":
                await asyncio.wait_for(gone.wait(), 20)


async def until_active(gateway: Gateway, count: int) -> None:
    """Wait until so many requests are in flight."""

    async def reached() -> bool:
        return await gateway.active() == count

    await wait_until(reached)


async def test_a_body_that_its_client_cuts_off_never_looks_whole_to_the_upstream(gateway: Gateway) -> None:
    outcomes: list[str] = []

    async def script(conversation: Conversation) -> None:
        try:
            await conversation.request()
            outcomes.append("whole")
        except (CutOff, ConnectionError):
            outcomes.append("cut off")

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        for message in (
            request("POST", "/", "content-length: 10") + b"hello",
            request("POST", "/", "transfer-encoding: chunked") + b"5\r\nhello\r\n",
            request("POST", "/", "transfer-encoding: chunked") + b"5\r\nhello\r\n0\r\n",
        ):
            for leave in (Client.end_writing, Client.reset):
                seen = len(app.requests)
                async with connected(gateway.address) as client:
                    await client.send(message)
                    await wait_until(lambda seen=seen: len(app.requests) > seen)
                    leave(client)
                    await gateway.until_quiet()
        await wait_until(lambda: len(outcomes) == 6)
        assert set(outcomes) == {"cut off"}


async def test_a_half_closed_client_still_gets_its_answers(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            await client.send(get("/1") + get("/2") + request("POST", "/3", body=b"x"))
            client.end_writing()
            assert [(await client.response()).status for _ in range(3)] == [200] * 3
            assert await client.is_closed()
        assert [message.target for message in app.requests] == ["/1", "/2", "/3"]


async def test_an_answer_before_the_end_of_the_request_is_passed_on_and_ends_the_connection(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request_head()
        await conversation.send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        await conversation.until_closed()

    async with upstream(script) as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            await client.send(request("POST", "/", "content-length: 1000000") + b"x" * 1000)
            answer = await client.response()
            assert (answer.status, answer.body, answer.value("connection")) == (403, b"no", b"close")
            client.post(b"x" * 1000)
            assert await client.is_closed()
        await gateway.until_quiet()


async def test_an_endpoint_that_is_taken_away_finishes_what_it_has_begun(gateway: Gateway) -> None:
    go_on, closed = asyncio.Event(), asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
        await go_on.wait()
        await conversation.send(b"world")
        await conversation.until_closed()
        closed.set()

    async with upstream(script) as old, upstream() as new:
        await gateway.serve(single(old.port))
        async with connected(gateway.address) as client:
            await client.send(get())
            head = await client.head()
            assert head.status == 200
            await gateway.serve(single(new.port))
            go_on.set()
            assert await client.exactly(10) == b"helloworld"
            await asyncio.wait_for(closed.wait(), 20)
            assert (await client.ask(get())).body == b"ok"
        assert len(old.requests) == len(new.requests) == 1


async def test_names_are_resolved(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(named("localhost", app.port))
        assert (await ask(gateway.address, get())).status == 200


def named(name: str, port: int) -> dict[str, object]:
    """A document whose only endpoint has a name."""
    return {"clusters": {"app": {"endpoints": [{"address": name, "port": port}]}}, "routes": [route("r")]}


class Names(Connector):
    """A connector for which every name has these addresses, as no machine's own names would have them."""

    def __init__(self, plane: Plane, *addresses: str) -> None:
        super().__init__(plane, TargetRules())
        self._addresses = addresses

    async def _resolve(self, endpoint: Endpoint) -> list[tuple[int, str]]:
        return [(socket.AF_INET, address) for address in self._addresses]


async def test_every_address_of_a_name_is_tried() -> None:
    async with upstream() as app, plane_here(named("app.test", app.port)) as (plane, address):
        plane.connector = Names(plane, "127.0.0.77", "127.0.0.1")  # nobody listens on the first
        assert (await ask(address, get())).status == 200


async def test_no_address_of_a_name_may_be_a_forbidden_one() -> None:
    async with upstream() as app, plane_here(named("app.test", app.port)) as (plane, address):
        plane.connector = Names(plane, "127.0.0.77", "169.254.169.254", "127.0.0.1")
        answer = await ask(address, get())
        assert (answer.status, answer.error) == (502, "target-refused")
        assert app.conversations == []


@pytest.mark.parametrize("name", ["nowhere.invalid", "a" * 70 + ".invalid", "a..b"])
async def test_a_name_that_cannot_be_resolved_is_a_failed_connect(gateway: Gateway, name: str) -> None:
    await gateway.serve(named(name, 80))
    async with asyncio.timeout(8):
        answer = await ask(gateway.address, get())
    assert answer.status in (502, 504)
    assert answer.error in ("upstream-connect-failed", "upstream-timeout")
    await gateway.until_quiet()
