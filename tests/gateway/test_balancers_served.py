"""Clusters' balancers over real connections: whose requests go where, and who comes back to whom."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from toska_tests.gateways import Gateway, cluster, route, single
from toska_tests.raw_http import Conversation, Upstream, ask, connected, get, response, upstream
from toska_tests.waiting import wait_until


@contextlib.asynccontextmanager
async def backends(count: int) -> AsyncGenerator[list[Upstream]]:
    """Upstreams that answer with their number."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(upstream(response(200, body=b"%d" % n))) for n in range(count)]


def document(servers: list[Upstream], **settings: Any) -> dict[str, Any]:
    """Everything to one cluster with these settings."""
    return {"clusters": {"app": cluster(*(s.port for s in servers), **settings)}, "routes": [route("all")]}


async def owner(gateway: Gateway, *fields: str, target: str = "/") -> bytes:
    """Which upstream answers."""
    return (await ask(gateway.address, get(target, *fields))).body


@pytest.mark.parametrize("balancer", ["round_robin", "weighted_round_robin", "random", "least_request"])
async def test_requests_spread_over_the_endpoints(gateway: Gateway, balancer: str) -> None:
    async with backends(3) as servers:
        await gateway.serve(document(servers, balancer=balancer))
        async with connected(gateway.address) as client:
            counts = Counter([(await client.ask(get())).body for _ in range(120)])
    assert len(counts) == 3
    assert all(count > 5 for count in counts.values())


async def test_peak_ewma_leaves_the_endpoint_alone_that_does_not_answer(gateway: Gateway) -> None:
    hold = asyncio.Event()

    async def stalling(conversation: Conversation) -> None:
        await conversation.request()
        await hold.wait()
        await conversation.send(response(200, body=b"late"))

    async with upstream(stalling) as stalled, backends(1) as [quick], contextlib.AsyncExitStack() as stack:
        await gateway.serve(document([stalled, quick], balancer="peak_ewma"))

        async def caught() -> bool:
            client = await stack.enter_async_context(connected(gateway.address))
            client.post(get())
            return bool(stalled.requests)

        async def alone() -> bool:
            return await gateway.active() == 1

        await wait_until(caught, what="a request that is not answered")
        await wait_until(alone, what="the other endpoint to be idle")
        async with connected(gateway.address) as client:
            assert {(await client.ask(get())).body for _ in range(50)} == {b"0"}
        hold.set()


Ask = Callable[[Gateway, int], Any]

KEYS: dict[str, tuple[dict[str, Any], Ask]] = {
    "header": ({"header": "x-user"}, lambda gateway, n: owner(gateway, f"X-User: u{n}")),
    "cookie": ({"cookie": "sid"}, lambda gateway, n: owner(gateway, f"Cookie: a=1; sid=s{n}; b=2")),
    "query": ({"query": "user"}, lambda gateway, n: owner(gateway, target=f"/?x=1&user=u{n}")),
    "path": ({"path": True}, lambda gateway, n: owner(gateway, target=f"/p/{n}?x={n}")),
}


@pytest.mark.parametrize("balancer", ["ring_hash", "maglev"])
@pytest.mark.parametrize("kind", KEYS)
async def test_the_same_key_goes_to_the_same_endpoint(gateway: Gateway, balancer: str, kind: str) -> None:
    hash_key, request_of = KEYS[kind]
    async with backends(4) as servers:
        await gateway.serve(document(servers, balancer=balancer, hash_key=hash_key))
        first = [await request_of(gateway, number) for number in range(24)]
        assert [await request_of(gateway, number) for number in range(24)] == first
        assert len(set(first)) >= 3


async def test_requests_without_the_key_spread_over_the_endpoints(gateway: Gateway) -> None:
    async with backends(3) as servers:
        await gateway.serve(document(servers, balancer="maglev", hash_key={"header": "x-user"}))
        assert len({await owner(gateway) for _ in range(40)}) == 3


@pytest.mark.parametrize(
    "settings", [{"balancer": "ip_hash"}, {"balancer": "ring_hash", "hash_key": {"client_ip": True}}]
)
async def test_a_client_is_known_by_the_address_that_a_trusted_proxy_tells(
    gateway: Gateway, settings: dict[str, Any]
) -> None:
    async with backends(4) as servers:
        trusting = {**document(servers, **settings), "server": {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}}
        await gateway.serve(trusting)
        told = [await owner(gateway, f"X-Forwarded-For: 198.51.100.{n}, 10.1.2.3") for n in range(24)]
        again = [await owner(gateway, f"X-Forwarded-For: 9.9.9.9, 198.51.100.{n}, 10.9.9.9") for n in range(24)]
        assert told == again
        assert len(set(told)) >= 3
        await gateway.serve(document(servers, **settings))  # trusting nobody: all of them are one client
        assert len({await owner(gateway, f"X-Forwarded-For: 198.51.100.{n}") for n in range(24)}) == 1


async def test_if_an_endpoint_leaves_the_ring_only_its_keys_move(gateway: Gateway) -> None:
    async with backends(4) as servers:
        hashed = {"balancer": "ring_hash", "hash_key": {"header": "x-user"}}
        await gateway.serve(document(servers, **hashed))
        before = [await owner(gateway, f"X-User: u{n}") for n in range(40)]
        await gateway.serve(document(servers[:3], **hashed))
        after = [await owner(gateway, f"X-User: u{n}") for n in range(40)]
    assert b"3" in before
    assert all(old in (b"3", new) for old, new in zip(before, after, strict=True))


async def test_keys_come_home_when_their_endpoint_does(gateway: Gateway) -> None:
    async with backends(3) as servers:
        settings = {"balancer": "ring_hash", "hash_key": {"header": "x-user"}, "outlier": {"base_ejection": "200ms"}}
        await gateway.serve(document(servers, **settings))
        home = [await owner(gateway, f"X-User: u{n}") for n in range(30)]
        lost, port = servers[0], servers[0].port
        await lost.stop()
        away = [await owner(gateway, f"X-User: u{n}") for n in range(30)]
        assert all(now == was for now, was in zip(away, home, strict=True) if was != b"0")
        assert b"0" not in away
        await lost.open(port)

        async def back() -> bool:
            return [await owner(gateway, f"X-User: u{n}") for n in range(30)] == home

        await wait_until(back, what="the ejection to be over")


def _cookie(answer: Any) -> str:
    [line] = answer.values("set-cookie")
    return line.decode()


async def test_an_affinity_cookie_brings_a_client_back_to_its_endpoint(gateway: Gateway) -> None:
    async with backends(4) as servers:
        await gateway.serve(document(servers, affinity={"ttl": "1h"}))
        first = await ask(gateway.address, get())
        line = _cookie(first)
        assert re.fullmatch(r"toska_affinity=[0-9a-f]{32}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600", line)
        assert str(servers[int(first.body)].port) not in line
        for _ in range(12):
            answer = await ask(gateway.address, get("/", f"Cookie: a=b; {line.partition(';')[0]}; c=d"))
            assert answer.body == first.body
            assert answer.values("set-cookie") == []
        assert servers[int(first.body)].requests[-1].value("cookie") == b"a=b; c=d"


async def test_a_cookie_that_the_gateway_did_not_make_is_as_good_as_none(gateway: Gateway) -> None:
    async with backends(2) as servers:
        await gateway.serve(document(servers, affinity={"cookie": "home", "secure": True}))
        forged = await ask(gateway.address, get("/", f"Cookie: home={'0' * 32}"))
        assert forged.status == 200
        assert _cookie(forged).endswith("; HttpOnly; SameSite=Lax; Secure")


async def test_a_client_whose_endpoint_is_gone_gets_another_and_a_new_cookie(gateway: Gateway) -> None:
    async with backends(3) as servers:
        await gateway.serve(document(servers, affinity={"cookie": "home"}))
        first = await ask(gateway.address, get())
        cookie = _cookie(first).partition(";")[0]
        await servers[int(first.body)].stop()
        second = await ask(gateway.address, get("/", f"Cookie: {cookie}"))
        assert second.status == 200
        assert second.body != first.body
        assert _cookie(second).partition(";")[0] != cookie


async def test_a_changed_balancer_is_in_force_with_the_next_request(gateway: Gateway) -> None:
    async with backends(3) as servers:
        await gateway.serve(single(*(server.port for server in servers)))
        assert len({await owner(gateway, "X-User: 1") for _ in range(40)}) == 3
        await gateway.serve(document(servers, balancer="maglev", hash_key={"header": "x-user"}))
        assert len({await owner(gateway, "X-User: 1") for _ in range(20)}) == 1
