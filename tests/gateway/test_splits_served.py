"""Splits on real traffic: who gets which cluster, by conditions, by key and by weight, and who keeps it."""

import contextlib
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
from toska_tests.gateways import Gateway, cluster, route
from toska_tests.issuers import SigningKey, jwt_policy
from toska_tests.raw_http import Client, ask, connected, get, response, upstream

USERS = 150


class Versions:
    """Two versions of an application behind a gateway, which answer with their names."""

    def __init__(self, gateway: Gateway, clusters: Mapping[str, Any]) -> None:
        self.gateway = gateway
        self.clusters = clusters

    async def serve(self, *to: Mapping[str, Any], **more: Any) -> None:
        """Split all requests so."""
        routes = [route("shop", to=list(to), **more)]
        server = {"trusted_proxies": ["127.0.0.1/32"]}
        await self.gateway.serve({"server": server, "clusters": self.clusters, "routes": routes})

    async def ask_as(self, *fields: str) -> str:
        """Which version answers a request with these fields."""
        answer = await ask(self.gateway.address, get("/", *fields))
        assert answer.status == 200
        return answer.body.decode()

    async def ask_all(self, client: Client, line: str) -> dict[int, str]:
        """Which version answers each user; `line` holds its number."""
        return {user: (await client.ask(get("/", line % user))).body.decode() for user in range(USERS)}


@pytest.fixture(scope="module")
async def shop(gateway: Gateway) -> AsyncGenerator[Versions]:
    async with contextlib.AsyncExitStack() as stack:
        clusters = {
            name: cluster((await stack.enter_async_context(upstream(response(200, body=name.encode())))).port)
            for name in ("stable", "canary")
        }
        yield Versions(gateway, clusters)


def weights(stable: int, canary: int) -> tuple[dict[str, Any], ...]:
    return {"cluster": "stable", "weight": stable}, {"cluster": "canary", "weight": canary}


async def test_a_part_with_when_takes_what_it_asks_for_and_the_others_share_the_rest(shop: Versions) -> None:
    beta = {"cluster": "canary", "when": {"headers": {"x-beta": "1"}}}
    insiders = {"cluster": "canary", "when": {"cookies": {"group": {"prefix": "in"}}, "client_ip": ["10.0.0.0/8"]}}
    await shop.serve(beta, insiders, *weights(1, 0))
    assert await shop.ask_as() == "stable"
    assert await shop.ask_as("X-Beta: 1") == "canary"
    assert await shop.ask_as("X-Beta: 2") == "stable"
    assert await shop.ask_as("Cookie: a=1; group=insiders", "X-Forwarded-For: 10.1.2.3") == "canary"
    assert await shop.ask_as("Cookie: a=1; group=insiders", "X-Forwarded-For: 192.0.2.1") == "stable"
    assert await shop.ask_as("Cookie: a=1; group=outsiders", "X-Forwarded-For: 10.1.2.3") == "stable"


@pytest.mark.parametrize(
    ("sticky", "line"),
    [
        ({"header": "x-user"}, "X-User: u%d"),
        ({"cookie": "sid"}, "Cookie: a=b; sid=u%d"),
        ({"client_ip": True}, "X-Forwarded-For: 192.0.2.%d"),
    ],
)
async def test_users_keep_their_version_and_stay_on_a_canary_that_grows(
    shop: Versions, sticky: dict[str, Any], line: str
) -> None:
    async with connected(shop.gateway.address) as client:
        before: set[int] = set()
        for share in (10, 50):
            await shop.serve(*weights(100 - share, share), sticky=sticky)
            told = await shop.ask_all(client, line)
            assert await shop.ask_all(client, line) == told
            chosen = {user for user, version in told.items() if version == "canary"}
            assert before < chosen
            assert len(chosen) < USERS * 0.75
            before = chosen


async def test_a_cookie_keeps_browsers_on_their_version(shop: Versions) -> None:
    await shop.serve(*weights(1, 1), sticky={"set_cookie": "shop_split", "ttl": "1h", "secure": True})
    seen: set[str] = set()
    async with connected(shop.gateway.address) as client:
        for _ in range(100):
            first = await client.ask(get())
            [line] = first.values("set-cookie")
            found = re.fullmatch(
                rb"(shop_split=[0-9a-f]{5}); Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600", line
            )
            assert found is not None
            again = await client.ask(get("/", f"Cookie: {found[1].decode()}"))
            assert (again.body, again.value("set-cookie")) == (first.body, None)
            seen.add(again.body.decode())
            if len(seen) == 2:
                break
        assert seen == {"stable", "canary"}
        # What the gateway has not made is no place in the split.
        assert (await client.ask(get("/", "Cookie: shop_split=me-please"))).value("set-cookie") is not None


async def test_a_request_without_the_key_goes_by_weight(shop: Versions) -> None:
    await shop.serve(*weights(1, 1), sticky={"header": "x-user"})
    async with connected(shop.gateway.address) as client:
        assert {(await client.ask(get())).body for _ in range(60)} == {b"stable", b"canary"}


async def test_a_verified_claim_keeps_a_user_on_a_version(shop: Versions) -> None:
    key = SigningKey()
    auth = {"jwt": jwt_policy(key)}
    await shop.serve(*weights(1, 1), sticky={"claim": "sub"}, policies={"auth": auth})
    async with connected(shop.gateway.address) as client:
        seen: set[bytes] = set()
        for user in range(24):
            fields = (f"Authorization: Bearer {key.token(sub=f'user-{user}')}", f"X-Noise: {user}")
            answers = {(await client.ask(get("/", *fields))).body for _ in range(3)}
            assert len(answers) == 1
            seen |= answers
        assert seen == {b"stable", b"canary"}


async def test_conditions_go_before_what_callers_stay_with(shop: Versions) -> None:
    beta = {"cluster": "canary", "when": {"headers": {"x-beta": {"present": True}}}}
    await shop.serve(beta, {"cluster": "stable", "weight": 1}, sticky={"set_cookie": "shop_split"})
    answer = await ask(shop.gateway.address, get("/", "X-Beta: 1"))
    assert (answer.body, answer.value("set-cookie")) == (b"canary", None)
    assert await shop.ask_as() == "stable"


async def test_a_version_with_a_cluster_of_its_own_is_not_split(shop: Versions) -> None:
    versions = {"by": ["header"], "default": "1", "known": {"1": {}, "2": {"cluster": "canary"}}}
    await shop.serve(*weights(1, 0), sticky={"header": "x-user"}, policies={"versions": versions})
    two = {"cluster": "canary", "when": {"headers": {"x-never": "1"}}}
    await shop.serve(two, *weights(1, 0), sticky={"header": "x-user"}, policies={"versions": versions})
    assert await shop.ask_as("X-User: 1", "X-API-Version: 2") == "canary"
    assert await shop.ask_as("X-User: 1", "X-API-Version: 1") == "stable"


async def test_blue_and_green_are_switched_by_one_word(shop: Versions) -> None:
    async with connected(shop.gateway.address) as client:
        for color in ("stable", "canary", "stable"):
            await shop.serve({"cluster": color})
            assert (await client.ask(get())).body == color.encode()
