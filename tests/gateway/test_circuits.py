"""A cluster's circuit: what opens it, what a caller is told, and how it closes again."""

import asyncio
import contextlib
from typing import Any

import pytest
from toska_tests.gateways import Gateway, cluster, route
from toska_tests.ports import free_port
from toska_tests.raw_http import OK, Conversation, ask, connect, connected, get, response, upstream
from toska_tests.waiting import unless_late, wait_until

POLICY: dict[str, Any] = {
    "failure_ratio": 0.5,
    "min_requests": 4,
    "window": "10s",
    "cooldown": "300ms",
    "half_open_requests": 2,
}
FAILURE = response(500, body=b"no")


def document(port: int, *, policies: dict[str, Any] | None = None, **breaker: Any) -> dict[str, Any]:
    """Everything to one cluster with a circuit in front of it."""
    return {
        "clusters": {"app": cluster(port, breaker={**POLICY, **breaker}, outlier={"consecutive_failures": 1000})},
        "routes": [route("all", policies=policies or {})],
    }


class Moody:
    """An upstream's script: answers as it is told to."""

    def __init__(self) -> None:
        self.answer = OK

    async def __call__(self, conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(self.answer)


async def test_a_cluster_that_fails_is_left_alone_and_tried_again_after_the_cooldown(gateway: Gateway) -> None:
    mood = Moody()
    mood.answer = FAILURE
    async with upstream(mood) as app:

        async def left_alone() -> None:
            app.requests.clear()
            await gateway.serve({})
            await gateway.serve(document(app.port, cooldown="500ms"))
            assert [(await ask(gateway.address, get())).status for _ in range(4)] == [500] * 4
            refused = await ask(gateway.address, get())
            assert (refused.status, refused.error) == (503, "circuit-open")
            assert refused.value("retry-after") == b"1"
            assert len(app.requests) == 4
            assert await gateway.metric("cluster_circuits_open", cluster="app") == 1
            assert await gateway.metric("circuit_refusals_total") >= 1

        await unless_late(left_alone, limit_s=0.45)
        mood.answer = OK

        async def served() -> bool:
            return (await ask(gateway.address, get())).status == 200

        await wait_until(served, what="the cooldown to be over")
        await wait_until(served, what="a second probe")
        assert await gateway.metric("cluster_circuits_open", cluster="app") == 0


async def test_a_failing_probe_opens_the_circuit_for_another_cooldown(gateway: Gateway) -> None:
    async with upstream(FAILURE) as app:

        async def probed() -> bool:
            await ask(gateway.address, get())
            return len(app.requests) == 5

        async def opened_again() -> None:
            app.requests.clear()
            await gateway.serve({})
            await gateway.serve(document(app.port, cooldown="300ms"))
            await wait_until(probed, what="a probe")
            assert (await ask(gateway.address, get())).error == "circuit-open"

        await unless_late(opened_again, limit_s=2 * 0.25)


async def test_only_so_many_probes_go_at_once(gateway: Gateway) -> None:
    hold = asyncio.Event()
    failing = True

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            if not failing:
                await hold.wait()
            await conversation.send(FAILURE if failing else OK)

    async with upstream(script) as app, contextlib.AsyncExitStack() as stack:
        await gateway.serve(document(app.port, cooldown="200ms"))
        for _ in range(4):
            await ask(gateway.address, get())
        failing = False
        clients = [await stack.enter_async_context(connected(gateway.address)) for _ in range(10)]

        async def probing() -> bool:
            probe = await stack.enter_async_context(connected(gateway.address))
            probe.post(get())
            return len(app.requests) == 6

        await wait_until(probing, what="two probes")
        assert {(await client.ask(get())).error for client in clients} == {"circuit-open"}
        assert len(app.requests) == 6
        hold.set()


async def test_failures_below_the_ratio_leave_it_closed(gateway: Gateway) -> None:
    mood = Moody()
    async with upstream(mood) as app:
        await gateway.serve(document(app.port, failure_ratio=0.6))
        for number in range(20):
            mood.answer = FAILURE if number % 2 else OK
            assert (await ask(gateway.address, get())).status == (500 if number % 2 else 200)


async def test_what_callers_get_wrong_or_break_off_is_no_failure(gateway: Gateway) -> None:
    hold = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            if message.target == "/wait":
                await hold.wait()
            await conversation.send(response(404, body=b""))

    async with upstream(script) as app:
        await gateway.serve(document(app.port, min_requests=2))
        for number in range(6):
            client = await connect(gateway.address)
            client.post(get("/wait"))
            await wait_until(lambda n=number: len(app.requests) > n, what="the request to arrive")
            client.reset()
            await client.aclose()
        await gateway.until_quiet()
        for _ in range(6):
            assert (await ask(gateway.address, get())).status == 404
        hold.set()


async def test_connections_that_cannot_be_made_and_answers_that_break_off_are_failures(gateway: Gateway) -> None:
    async def broken(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        conversation.reset()

    # Policies of their own, and so circuits.
    await gateway.serve(document(free_port(), cooldown="62s", policies={"retry": {"attempts": 1}}))
    errors = [(await ask(gateway.address, get())).error for _ in range(5)]
    assert errors == ["upstream-connect-failed"] * 4 + ["circuit-open"]
    async with upstream(broken) as app:
        await gateway.serve(document(app.port, min_requests=3, cooldown="63s"))
        for _ in range(3):
            async with connected(gateway.address) as client:
                await client.send(get())
                assert b"half" in await client.until(b"half")
                with contextlib.suppress(ConnectionError):
                    await client.to_end()
        assert (await ask(gateway.address, get())).error == "circuit-open"


async def test_a_change_of_routes_does_not_close_a_circuit_and_a_change_of_its_policy_does(gateway: Gateway) -> None:
    async with upstream(FAILURE) as app:
        await gateway.serve(document(app.port, cooldown="60s"))
        for _ in range(4):
            await ask(gateway.address, get())
        await gateway.serve(document(app.port, cooldown="60s", policies={"timeout": "9s"}))
        assert (await ask(gateway.address, get())).error == "circuit-open"
        await gateway.serve(document(app.port, cooldown="61s"))
        assert (await ask(gateway.address, get())).status == 500


async def test_each_attempt_of_a_request_counts(gateway: Gateway) -> None:
    async def resetting(conversation: Conversation) -> None:
        await conversation.request()
        conversation.reset()

    async with upstream(resetting) as app:
        retrying = {"retry": {"attempts": 4, "retry_on": ["reset"]}}
        await gateway.serve(document(app.port, min_requests=3, cooldown="64s", policies=retrying))
        assert (await ask(gateway.address, get())).error == "circuit-open"
        assert len(app.requests) == 3


async def test_the_log_says_when_a_circuit_changes(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    mood = Moody()
    mood.answer = FAILURE
    async with upstream(mood) as app:
        await gateway.serve(document(app.port, window="9s"))  # a policy of its own, and so a circuit
        for _ in range(4):
            await ask(gateway.address, get())
        mood.answer = OK
        told = ""

        async def closed() -> bool:
            nonlocal told
            await ask(gateway.address, get())
            printed = capsys.readouterr()
            told += printed.out + printed.err
            return told.count("circuit_changed") >= 3

        await wait_until(closed, what="the circuit has opened, looked again and closed")
    lines = [line for line in told.splitlines() if "circuit_changed" in line]
    assert len(lines) == 3
    assert all("app" in line for line in lines)
    for line, (before, after) in zip(
        lines, [("closed", "open"), ("open", "half-open"), ("half-open", "closed")], strict=True
    ):
        assert f"before={before} " in line + " "
        assert f"after={after} " in line + " "
