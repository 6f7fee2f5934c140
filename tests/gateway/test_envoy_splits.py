"""A real Envoy and a split whose callers stay with their part: they are where our own workers have them."""

import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from toska_common.balancing.rendezvous import Rendezvous
from toska_tests.envoys import EnvoyGateway
from toska_tests.gateways import cluster, route
from toska_tests.issuers import SigningKey, jwt_policy, seconds
from toska_tests.raw_http import Client, Upstream, answering, connect, get, response, upstream

_NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
async def parts() -> AsyncGenerator[Mapping[str, Upstream]]:
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(upstream(answering(response(200, body=name.encode()))))
            for name in _NAMES
        }


@asynccontextmanager
async def _serving(envoy: EnvoyGateway, document: Mapping[str, Any]) -> AsyncGenerator[Client]:
    """A client that comes once the document is in force."""
    await envoy.serve(document)
    client = await connect(envoy.address)
    try:
        yield client
    finally:
        await client.aclose()


def _split(parts: Mapping[str, Upstream], weights: Mapping[str, int], **more: Any) -> dict[str, Any]:
    to = [{"cluster": name, "weight": weight} for name, weight in weights.items()]
    clusters = {name: cluster(one.port) for name, one in parts.items()}
    return {"clusters": clusters, "routes": [{**route("split", to=to), "sticky": {"header": "x-user"}, **more}]}


def _keys() -> list[str]:
    drawn = random.Random(7)
    return ["a", "b" * 127, "c" * 128, "d" * 129, "e" * 400, *(f"user-{drawn.random()}" for _ in range(60))]


async def test_every_caller_is_where_our_own_workers_would_have_it(
    envoy: EnvoyGateway, parts: Mapping[str, Upstream]
) -> None:
    for weights in ({"one": 90, "two": 9, "three": 1}, {"one": 50, "two": 49, "three": 1}, {"one": 0, "two": 1}):
        async with _serving(envoy, _split(parts, weights)) as client:
            known = Rendezvous(list(weights), list(weights.values()))
            for key in _keys():
                answer = await client.ask(get("/", f"X-User: {key}"))
                assert answer.body.decode() == known.pick(key.encode()), key


async def test_what_names_the_part_is_not_the_clients_to_say_and_not_told_upstream(
    envoy: EnvoyGateway, parts: Mapping[str, Upstream]
) -> None:
    async with _serving(
        envoy, _split(parts, {"one": 1, "two": 0}, to=[{"cluster": "one"}, {"cluster": "two", "weight": 0}])
    ) as client:
        assert (await client.ask(get("/", "X-User: a", "X-Toska-Part: two"))).body == b"one"
        assert parts["one"].requests[-1].value("x-toska-part") is None


async def test_who_has_no_key_goes_by_weight(envoy: EnvoyGateway, parts: Mapping[str, Upstream]) -> None:
    async with _serving(envoy, _split(parts, {"one": 1, "two": 1})) as client:
        seen = {(await client.ask(get("/"))).body for _ in range(60)}
        assert seen == {b"one", b"two"}


async def test_a_cookie_that_is_set_has_the_attributes_that_were_asked_for_and_is_set_once(
    envoy: EnvoyGateway, parts: Mapping[str, Upstream]
) -> None:
    sticky = {"set_cookie": "part", "ttl": "1h", "secure": True}
    async with _serving(envoy, _split(parts, {"one": 1, "two": 1}, sticky=sticky)) as client:
        first = await client.ask(get("/", "Cookie: part=not-ours"))
        pair, _, attributes = (first.value("set-cookie") or b"").decode().partition("; ")
        assert attributes == "Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600"
        number = pair.removeprefix("part=")
        assert len(number) == 5
        second = await client.ask(get("/", f"Cookie: a=1; {pair}; b=2"))
        assert second.value("set-cookie") is None
        assert second.body.decode() == Rendezvous(["one", "two"], [1, 1]).pick(number.encode()) == first.body.decode()


async def test_parts_for_those_who_ask_go_before_whoever_stays(
    envoy: EnvoyGateway, parts: Mapping[str, Upstream]
) -> None:
    when = {"cluster": "three", "when": {"headers": {"x-beta": "1"}}}
    async with _serving(envoy, _split(parts, {}, to=[when, {"cluster": "one"}, {"cluster": "two"}])) as client:
        assert (await client.ask(get("/", "X-User: a", "X-Beta: 1"))).body == b"three"
        assert (await client.ask(get("/", "X-User: a"))).body in {b"one", b"two"}


async def test_a_claim_of_a_verified_token_may_say_who_it_is(
    envoy: EnvoyGateway, parts: Mapping[str, Upstream]
) -> None:
    signer = SigningKey("ES256")
    auth = {"jwt": jwt_policy(signer, algorithms=["ES256"])}
    known = Rendezvous(["one", "two"], [1, 1])
    document = _split(parts, {"one": 1, "two": 1}, sticky={"claim": "org.unit"}, policies={"auth": auth})
    async with _serving(envoy, document) as client:
        for unit, key in [(f"u{number}", f"u{number}") for number in range(8)] + [(17, "17"), (2.5, "2.5")]:
            token = signer.token({}, org={"unit": unit}, exp=seconds(600))
            answer = await client.ask(get("/", f"Authorization: Bearer {token}"))
            assert answer.body.decode() == known.pick(key.encode()), unit
