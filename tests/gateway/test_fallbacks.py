"""Who answers when the cluster could not: when the fallback is turned to, and what it is given."""

import asyncio
from typing import Any

import pytest
from toska_common.routing.document import load_document
from toska_common.routing.problems import InvalidDocument
from toska_tests.gateways import Gateway, cluster, route
from toska_tests.ports import free_port
from toska_tests.raw_http import (
    OK,
    Conversation,
    ask,
    chunks,
    connected,
    get,
    request,
    resetting,
    response,
    silent,
    upstream,
)
from toska_tests.waiting import unless_late, wait_until

SORRY = {"respond": {"status": 200, "body": "sorry", "content_type": "text/plain"}}


def document(
    *ports: int,
    fallback: dict[str, Any] | None = None,
    app: dict[str, Any] | None = None,
    others: dict[str, Any] | None = None,
    **policies: Any,
) -> dict[str, Any]:
    """Everything to one cluster, and what it cannot serve to a fallback."""
    members = cluster(*ports, outlier={"consecutive_failures": 1000}, **(app or {}))
    wanted = {"retry": {"attempts": 1, "budget_floor": 1000}, "fallback": fallback or SORRY, **policies}
    return {"clusters": {"app": members, **(others or {})}, "routes": [route("all", policies=wanted)]}


async def test_a_fixed_response_stands_in_for_a_cluster_that_cannot_be_reached(gateway: Gateway) -> None:
    await gateway.serve(document(free_port()))
    before = await gateway.metric("fallbacks_total")
    async with connected(gateway.address) as client:
        for method in ("GET", "POST"):
            answer = await client.ask(request(method, body=b"x" if method == "POST" else None))
            assert (answer.status, answer.body) == (200, b"sorry")
            assert answer.value("x-toska-fallback") == b"connect"
            assert answer.error is None
        head = await client.ask(request("HEAD"), to="HEAD")
        assert (head.status, head.value("content-length")) == (200, b"5")
    assert await gateway.metric("fallbacks_total") == before + 3
    assert await gateway.active() == 0


@pytest.mark.parametrize(
    ("script", "why"), [(resetting, b"reset"), (silent, b"timeout"), (response(503), b"503"), (response(500), b"500")]
)
async def test_another_cluster_serves_what_the_first_failed(gateway: Gateway, script: Any, why: bytes) -> None:
    async with upstream(script) as bad, upstream(response(200, body=b"static")) as static:
        on = ["reset", "timeout", "5xx"]
        wanted = document(
            bad.port,
            fallback={"cluster": "static", "on": on},
            others={"static": cluster(static.port)},
            response_timeout="150ms" if script is silent else "20s",
        )
        await gateway.serve(wanted)

        async def served() -> None:
            bad.requests.clear()
            static.requests.clear()
            answer = await ask(gateway.address, request("PUT", "/a?b=c", body=b"hello"))
            assert (answer.status, answer.body, answer.value("x-toska-fallback")) == (200, b"static", why)
            assert [message.body for message in static.requests] == [b"hello"]
            assert static.requests[0].target == "/a?b=c"
            assert len(bad.requests) == 1

        # Where one cluster takes its whole time, the other must not.
        await unless_late(served, limit_s=2 * 0.15 if script is silent else 20)
        assert await gateway.active() == 0


async def test_it_comes_after_the_retries(gateway: Gateway) -> None:
    async with upstream(response(503)) as bad:
        retry = {"attempts": 3, "retry_on": ["503"], "backoff": {"base": "0s", "max": "0s"}, "budget_floor": 1000}
        await gateway.serve(document(bad.port, fallback={**SORRY, "on": ["503"]}, retry=retry))
        assert (await ask(gateway.address, get())).body == b"sorry"
        assert len(bad.requests) == 3


async def test_only_named_conditions_turn_to_it(gateway: Gateway) -> None:
    async with upstream(response(500)) as ill:
        await gateway.serve(document(ill.port))
        assert (await ask(gateway.address, get())).status == 500
    await gateway.serve(document(free_port(), fallback={**SORRY, "on": ["circuit_open"]}))
    assert (await ask(gateway.address, get())).error == "upstream-connect-failed"


async def test_an_open_circuit_an_empty_cluster_and_a_limit_turn_to_it(gateway: Gateway) -> None:
    breaker = {"min_requests": 1, "failure_ratio": 0.1, "cooldown": "60s"}
    async with upstream(response(500)) as ill:
        await gateway.serve(document(ill.port, app={"breaker": breaker}))
        await ask(gateway.address, get())
        assert (await ask(gateway.address, get())).value("x-toska-fallback") == b"circuit_open"
    empty = document(1)
    empty["clusters"]["app"] = {"service": "nobody"}
    await gateway.serve(empty)
    assert (await ask(gateway.address, get())).value("x-toska-fallback") == b"unavailable"
    async with upstream(silent) as stuck:
        await gateway.serve(document(stuck.port, app={"limits": {"max_requests": 1}}))
        async with connected(gateway.address) as client:
            await client.send(get())
            await wait_until(lambda: len(stuck.requests) == 1)
            assert (await ask(gateway.address, get())).value("x-toska-fallback") == b"overloaded"


async def test_a_request_of_which_nothing_was_sent_goes_there_whatever_its_method(gateway: Gateway) -> None:
    async with upstream() as static:
        others = {"static": cluster(static.port)}
        await gateway.serve(document(free_port(), fallback={"cluster": "static"}, others=others))
        big = b"x" * 200_000  # more than is held for a retry
        assert (await ask(gateway.address, request("POST", body=big))).status == 200
        coded = request("POST", "/", "transfer-encoding: chunked") + chunks([b"hel", b"lo"])
        assert (await ask(gateway.address, coded)).status == 200
        assert [message.body for message in static.requests] == [big, b"hello"]


async def test_what_may_have_been_done_is_not_done_again_elsewhere(gateway: Gateway) -> None:
    async with upstream(resetting) as bad, upstream() as static:
        others = {"static": cluster(static.port)}
        await gateway.serve(document(bad.port, fallback={"cluster": "static"}, others=others))
        answer = await ask(gateway.address, request("POST", body=b"x"))
        assert (answer.status, answer.error) == (502, "upstream-reset")
        assert static.requests == []


async def test_a_fallback_that_fails_too_is_reported_and_has_no_fallback(gateway: Gateway) -> None:
    others = {"static": cluster(free_port())}
    await gateway.serve(document(free_port(), fallback={"cluster": "static"}, others=others))
    async with asyncio.timeout(5):
        answer = await ask(gateway.address, get())
    assert (answer.status, answer.error) == (502, "upstream-connect-failed")
    assert answer.value("x-toska-fallback") == b"connect"
    assert await gateway.active() == 0


async def test_nothing_stands_in_once_a_byte_of_the_response_has_gone(gateway: Gateway) -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(OK[:-1])
        conversation.reset()

    async with upstream(script) as app:
        await gateway.serve(document(app.port, fallback={**SORRY, "on": ["reset", "5xx", "timeout"]}))
        async with connected(gateway.address) as client:
            await client.send(get())
            with pytest.raises(ConnectionResetError):
                await client.response()


async def test_the_failed_attempt_counts_for_the_circuit_of_its_own_cluster(gateway: Gateway) -> None:
    breaker = {"min_requests": 2, "failure_ratio": 0.1, "cooldown": "60s"}
    async with upstream() as static:
        others = {"static": cluster(static.port, breaker=breaker)}
        await gateway.serve({})
        wanted = document(free_port(), fallback={"cluster": "static"}, others=others, app={"breaker": breaker})
        await gateway.serve(wanted)
        answers = [await ask(gateway.address, get()) for _ in range(4)]
        reasons = [answer.value("x-toska-fallback") for answer in answers]
        assert reasons == [b"connect", b"connect", b"circuit_open", b"circuit_open"]
        assert [(answer.status, answer.error) for answer in answers] == [(200, None)] * 4
        assert len(static.requests) == 4


def test_a_fallback_leads_to_a_cluster_that_there_is() -> None:
    text = """
clusters: {app: {endpoints: [{address: 127.0.0.1, port: 9}]}}
routes: [{name: a, match: {path: /a}, to: app, policies: {fallback: {cluster: ap}}}]
"""
    with pytest.raises(InvalidDocument) as refused:
        load_document(text, source="test")
    [problem] = refused.value.problems
    assert problem.path == "routes[0].policies.fallback.cluster"
    assert problem.reason == 'there is no cluster "ap" (did you mean "app"?)'
