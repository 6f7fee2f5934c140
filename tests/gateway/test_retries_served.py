"""Which failed attempts are made again, when, and what of them the client and the upstream see."""

import asyncio
import time
from typing import Any

import pytest
from toska_tests.gateways import Gateway, cluster, route
from toska_tests.raw_http import OK, Conversation, ask, chunks, connected, get, request, response, upstream
from toska_tests.waiting import in_time, unless_late, wait_until

BUSY = response(503, body=b"busy")
AT_ONCE = {"base": "0s", "max": "0s"}


def document(*ports: int, clusters: dict[str, Any] | None = None, **retry: Any) -> dict[str, Any]:
    """Everything to one cluster, in turn, with a policy that retries as often as it likes unless told otherwise."""
    policy = {"attempts": 2, "retry_on": ["503"], "backoff": AT_ONCE, "budget_floor": 10_000, **retry}
    app = cluster(*ports, balancer="round_robin", outlier={"consecutive_failures": 1000})
    return {"clusters": {"app": {**app, **(clusters or {})}}, "routes": [route("all", policies={"retry": policy})]}


async def test_a_status_that_is_retried_is_not_seen_by_the_client(gateway: Gateway) -> None:
    async with upstream(BUSY) as busy, upstream() as well:
        await gateway.serve(document(busy.port, well.port))
        async with connected(gateway.address) as client:
            for _ in range(4):
                answer = await client.ask(get())
                assert (answer.status, answer.body) == (200, b"ok")
        assert len(busy.requests) >= 2
        assert await gateway.active() == 0


@pytest.mark.parametrize("conditions", [["5xx"], ["reset", 503], ["429", "503"]])
async def test_statuses_are_named_or_their_class_is(gateway: Gateway, conditions: list[object]) -> None:
    async with upstream(BUSY) as busy, upstream() as well:
        await gateway.serve(document(busy.port, well.port, retry_on=conditions))
        assert [(await ask(gateway.address, get())).status for _ in range(4)] == [200] * 4


async def test_a_status_that_is_not_named_is_passed_on(gateway: Gateway) -> None:
    async with upstream(response(500, body=b"oh")) as ill:
        await gateway.serve(document(ill.port, retry_on=["503"]))
        assert (await ask(gateway.address, get())).body == b"oh"
        assert len(ill.requests) == 1


async def test_the_last_attempts_response_is_passed_on(gateway: Gateway) -> None:
    count = 0

    async def script(conversation: Conversation) -> None:
        nonlocal count
        while True:
            await conversation.request()
            count += 1
            await conversation.send(response(503, f"x-count: {count}", body=b"busy %d" % count))

    async with upstream(script) as app:
        await gateway.serve(document(app.port, attempts=3))
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.body, answer.value("x-count")) == (503, b"busy 3", b"3")
        assert answer.error is None
        assert len(app.requests) == 3


async def test_connections_of_withheld_responses_go_on_serving(gateway: Gateway) -> None:
    """Also where the body comes later than the head, chunked or not."""
    bodies = [
        b"content-length: 4\r\n\r\n" + b"busy",
        b"transfer-encoding: chunked\r\n\r\n" + chunks([b"bu", b"sy"]),
    ]

    async def script(conversation: Conversation) -> None:
        while True:
            for body in bodies:
                await conversation.request()
                head, _, rest = body.partition(b"\r\n\r\n")
                await conversation.send(b"HTTP/1.1 503 Busy\r\n" + head + b"\r\n\r\n")
                await asyncio.sleep(0.01)
                await conversation.send(rest)

    async with upstream(script) as busy, upstream() as well:
        await gateway.serve(document(busy.port, well.port, backoff={"base": "20ms", "max": "20ms"}))
        async with connected(gateway.address) as client:
            while len(busy.requests) < 6:
                assert (await client.ask(get())).status == 200
        assert len(busy.conversations) < len(busy.requests)


async def test_a_withheld_response_that_has_no_end_costs_its_connection(gateway: Gateway) -> None:
    closed = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 503 Busy\r\ncontent-length: 100000000\r\n\r\n")
        try:
            while True:
                await conversation.send(b"x" * 65536)
        finally:
            closed.set()

    async with upstream(script) as busy, upstream() as well:
        await gateway.serve(document(busy.port, well.port))
        for _ in range(2):
            assert (await ask(gateway.address, get())).status == 200
        async with asyncio.timeout(20):
            await closed.wait()


@pytest.mark.parametrize(
    ("method", "fields", "by_key", "attempts"),
    [
        ("GET", (), False, 2),
        ("PUT", (), False, 2),
        ("POST", (), True, 1),
        ("POST", ("idempotency-key: 7",), False, 1),
        ("POST", ("idempotency-key: 7",), True, 2),
        ("PATCH", ("idempotency-key: 7",), True, 2),
    ],
)
async def test_only_what_may_be_done_twice_is_done_twice(
    gateway: Gateway, method: str, fields: tuple[str, ...], by_key: bool, attempts: int
) -> None:
    async with upstream(BUSY) as app:
        await gateway.serve(document(app.port, idempotency_key=by_key))
        body = None if method == "GET" else b"hello"
        assert (await ask(gateway.address, request(method, "/", *fields, body=body))).status == 503
        assert [message.body for message in app.requests] == [body or b""] * attempts


@pytest.mark.parametrize(("size", "attempts"), [(1000, 2), (1001, 1)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_are_repeated_up_to_a_bound(gateway: Gateway, size: int, attempts: int, chunked: bool) -> None:
    # What is held of a chunked body is held with its framing: "3e8\r\n", "\r\n" and the last chunk.
    bound = 1000 + (len(b"3e8\r\n\r\n0\r\n\r\n") if chunked else 0)
    async with upstream(BUSY) as app:
        await gateway.serve(document(app.port, replay_bytes=bound))
        body = b"x" * size
        message = request("PUT", body=body)
        if chunked:
            message = request("PUT", "/", "transfer-encoding: chunked") + chunks([body])
        assert (await ask(gateway.address, message)).status == 503
        assert [message.body for message in app.requests] == [body] * attempts


async def test_a_response_that_asks_for_patience_gets_it_within_limits(gateway: Gateway) -> None:
    async with upstream(response(503, "retry-after: 1", body=b"")) as app:
        await gateway.serve(document(app.port, max_retry_after="1s"))
        begun = time.monotonic()
        assert (await ask(gateway.address, get())).status == 503
        assert 0.95 < time.monotonic() - begun < 20
        assert len(app.requests) == 2
        await gateway.serve(document(app.port, max_retry_after="900ms"))

        async def at_once() -> None:
            app.requests.clear()
            answer = await ask(gateway.address, get())
            assert (answer.status, answer.value("retry-after")) == (503, b"1")
            assert len(app.requests) == 1

        await in_time(at_once, limit_s=0.9)


async def test_a_retry_that_would_come_after_the_deadline_is_not_waited_for(gateway: Gateway) -> None:
    async with upstream(response(503, "retry-after: 2", body=b"")) as app:
        wanted = document(app.port, max_retry_after="10s")
        wanted["routes"][0]["policies"]["timeout"] = "1s"
        await gateway.serve(wanted)

        async def at_once() -> None:
            app.requests.clear()
            assert (await ask(gateway.address, get())).status == 503
            assert len(app.requests) == 1

        await in_time(at_once, limit_s=0.8)


async def test_retries_wait_longer_and_longer_and_not_all_as_long(gateway: Gateway) -> None:
    async with upstream(BUSY) as app:
        await gateway.serve(document(app.port, attempts=3, backoff={"base": "100ms", "max": "100ms"}))

        async def took() -> float:
            begun = time.monotonic()
            await ask(gateway.address, get())
            return time.monotonic() - begun

        async def differ() -> bool:
            app.requests.clear()
            times = sorted(await asyncio.gather(*(took() for _ in range(40))))
            assert times[-1] > 0.12  # two pauses of up to 100 ms each
            assert len(app.requests) == 120
            return times[0] < 0.08

        # More than once: where the machine stands still, the short pauses take as long as the long ones.
        await wait_until(differ, what="a request whose pauses are short")


async def test_a_try_that_takes_too_long_is_given_up_for_another_endpoint(gateway: Gateway) -> None:
    closed = asyncio.Event()

    async def silent(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.until_closed()
        closed.set()

    async with upstream(silent) as slow, upstream() as well:
        timeouts: dict[str, Any] = {"retry_on": ["timeout"], "per_try_timeout": "150ms"}
        await gateway.serve(document(slow.port, well.port, **timeouts))

        async def given_up() -> None:
            assert [(await ask(gateway.address, get())).status for _ in range(2)] == [200, 200]

        await unless_late(given_up, limit_s=2 * 0.15)  # one try's time; the second is none of the endpoint that is well
        async with asyncio.timeout(20):
            await closed.wait()  # nobody is left waiting for it
        await gateway.serve(document(slow.port, **timeouts))
        slow.requests.clear()
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.error) == (504, "upstream-timeout")
        await wait_until(lambda: len(slow.requests) == 2)
        assert (await ask(gateway.address, request("POST", body=b"x"))).status == 504
        await wait_until(lambda: len(slow.requests) == 3)


async def test_a_slow_client_is_not_taken_for_a_slow_upstream(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(document(app.port, retry_on=["timeout"], per_try_timeout="150ms"))

        async def slowly() -> None:
            app.requests.clear()
            async with connected(gateway.address) as client:
                await client.send(request("PUT", "/", "content-length: 4"))
                for _ in range(4):
                    await asyncio.sleep(0.05)
                    await client.send(b"x")
                assert (await client.response()).status == 200
            assert len(app.requests) == 1

        await unless_late(slowly, limit_s=4 * 0.05 + 0.15)  # what is longer, may have been the upstream's time


async def test_a_retry_of_a_body_that_is_still_coming_sends_all_of_it(gateway: Gateway) -> None:
    async def early(conversation: Conversation) -> None:
        await conversation.request_head()
        await conversation.exactly(5)
        await conversation.send(BUSY)
        await conversation.until_closed()

    async with upstream(early) as busy, upstream() as well:
        await gateway.serve(document(busy.port, well.port))
        for _ in range(2):
            async with connected(gateway.address) as client:
                seen = len(well.requests)
                await client.send(request("PUT", "/", "content-length: 10") + b"hello")
                await wait_until(lambda seen=seen: len(well.requests) > seen)
                await client.send(b"world")
                assert (await client.response()).status == 200
        assert {message.body for message in well.requests} == {b"helloworld"}


async def test_a_client_that_leaves_while_a_retry_waits_leaves_nothing_behind(gateway: Gateway) -> None:
    async with upstream(response(503, "retry-after: 1", body=b"")) as app:
        await gateway.serve(document(app.port))

        async def leave() -> None:
            app.requests.clear()
            async with connected(gateway.address) as client:
                await client.send(get())
                await wait_until(lambda: len(app.requests) == 1)
                await asyncio.sleep(0.05)
                client.reset()
            await gateway.until_quiet()
            assert len(app.requests) == 1

        await unless_late(leave, limit_s=1.0)  # or the retry is made before the gateway sees that nobody waits for it
        await asyncio.sleep(1.1)
        assert len(app.requests) == 1


async def test_a_budget_bounds_the_retries_of_a_cluster_and_the_rest_is_passed_on(gateway: Gateway) -> None:
    async with upstream(BUSY) as app:
        await gateway.serve({})  # a cluster of its own, of which nothing has been spent yet
        await gateway.serve(document(app.port, budget=0.2, budget_floor=0))
        refused = await gateway.metric("budget_refusals_total")
        answers = await asyncio.gather(*(ask(gateway.address, get()) for _ in range(100)))
        assert {answer.status for answer in answers} == {503}
        assert {answer.body for answer in answers} == {b"busy"}
        assert 100 < len(app.requests) <= 120
        assert await gateway.metric("budget_refusals_total") - refused >= 80


async def test_each_withheld_response_counts_for_the_circuit(gateway: Gateway) -> None:
    breaker = {"min_requests": 3, "cooldown": "60s"}
    async with upstream(BUSY) as app:
        await gateway.serve(document(app.port, clusters={"breaker": breaker}, attempts=5))
        answer = await ask(gateway.address, get())
        # The third opens it. There is nothing better to be had then, so what is there is passed on.
        assert (answer.status, answer.body) == (503, b"busy")
        assert len(app.requests) == 3
        assert (await ask(gateway.address, get())).error == "circuit-open"


async def test_a_withheld_429_does_not_speak_against_the_cluster(gateway: Gateway) -> None:
    breaker = {"min_requests": 3, "cooldown": "61s"}
    async with upstream(response(429, body=b"")) as app:
        await gateway.serve(document(app.port, clusters={"breaker": breaker}, retry_on=["429"]))
        for _ in range(5):
            assert (await ask(gateway.address, get())).status == 429
        assert len(app.requests) == 10


async def test_an_upgrade_is_not_repeated(gateway: Gateway) -> None:
    async with upstream(BUSY) as app:
        wanted = document(app.port)
        wanted["routes"][0]["policies"]["upgrade"] = ["websocket"]
        await gateway.serve(wanted)
        answer = await ask(gateway.address, get("/", "connection: upgrade", "upgrade: websocket"))
        assert answer.status == 503
        assert len(app.requests) == 1


async def test_the_time_of_a_try_ends_with_a_tunnels_beginning(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request_head()
        await conversation.send(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        await conversation.exactly(4)
        await asyncio.sleep(0.25)
        await conversation.send(b"pong")

    async with upstream(script) as app:
        wanted = document(app.port, retry_on=["timeout"], per_try_timeout="200ms")
        wanted["routes"][0]["policies"]["upgrade"] = ["websocket"]
        await gateway.serve(wanted)

        async def tunnel() -> None:
            async with connected(gateway.address) as client:
                await client.send(get("/", "connection: upgrade", "upgrade: websocket"))
                assert (await client.response()).status == 101
                await client.send(b"ping")
                assert await client.exactly(4) == b"pong"

        await unless_late(tunnel, limit_s=0.25 + 0.2)


async def test_nothing_is_repeated_once_a_byte_of_the_response_has_gone(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(OK[:-1])
        conversation.reset()

    async with upstream(script) as app:
        await gateway.serve(document(app.port, retry_on=["reset", "5xx", "timeout"]))
        async with connected(gateway.address) as client:
            await client.send(get())
            with pytest.raises(ConnectionResetError):
                await client.response()
        assert len(app.requests) == 1
