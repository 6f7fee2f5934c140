"""A real Envoy whose routes go by the client's address: its own, or what a trusted proxy tells of it."""

import gzip
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from toska_common.envoy import find_refusals
from toska_tests.envoys import EnvoyGateway
from toska_tests.gateways import cluster, route, snapshot_of
from toska_tests.raw_http import Upstream, answering, ask, get, request, response, upstream

_LONG = b"x" * 4096
_INSIDE = {"path_prefix": "/", "client_ip": ["10.0.0.0/8", "2001:db8::/32"]}
_PROXIES = {"trusted_proxies": ["127.0.0.1/32"]}


@pytest.fixture
async def inside() -> AsyncGenerator[Upstream]:
    async with upstream(answering(response(200, "content-type: text/plain", body=_LONG))) as running:
        yield running


@pytest.fixture
async def outside() -> AsyncGenerator[Upstream]:
    async with upstream(answering(response(200, "content-type: text/plain", body=b"outside"))) as running:
        yield running


def _document(inside: Upstream, outside: Upstream, match: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "clusters": {"inside": cluster(inside.port), "outside": cluster(outside.port)},
        "routes": [{"name": "inside", "match": match, "to": "inside", **more}, route("outside", to="outside")],
    }


async def test_a_stranger_is_known_by_its_own_address_whatever_it_says(
    envoy: EnvoyGateway, inside: Upstream, outside: Upstream
) -> None:
    await envoy.serve(_document(inside, outside, _INSIDE))
    assert (await ask(envoy.address, get("/", "X-Forwarded-For: 10.1.2.3"))).body == b"outside"
    await envoy.serve(_document(inside, outside, {"path_prefix": "/", "client_ip": ["127.0.0.1/32"]}))
    assert (await ask(envoy.address, get("/", "X-Forwarded-For: 192.0.2.1"))).body == _LONG


@pytest.mark.parametrize(
    ("said", "body"), [("10.1.2.3", _LONG), ("2001:db8::7", _LONG), ("192.0.2.1", b"outside"), ("", b"outside")]
)
async def test_what_a_trusted_proxy_says_chooses_the_route_and_its_policies(
    envoy: EnvoyGateway, inside: Upstream, outside: Upstream, said: str, body: bytes
) -> None:
    policies: dict[str, Any] = {"compress": {"algorithms": ["gzip"]}, "body": {"max_bytes": 10}}
    await envoy.serve({**_document(inside, outside, _INSIDE, policies=policies), "server": _PROXIES})
    fields = ["Accept-Encoding: gzip", *([f"X-Forwarded-For: {said}"] if said else [])]
    answer = await ask(envoy.address, get("/", *fields))
    compressed = answer.value("content-encoding") == b"gzip"
    assert compressed == (body == _LONG)
    assert (gzip.decompress(answer.body) if compressed else answer.body) == body
    long = await ask(envoy.address, request("POST", "/", *fields, body=b"more than ten"))
    assert long.status == (413 if body == _LONG else 200)


async def test_a_part_of_a_split_may_be_for_some_networks(
    envoy: EnvoyGateway, inside: Upstream, outside: Upstream
) -> None:
    document = _document(inside, outside, {"path_prefix": "/"})
    document["routes"] = [
        route("split", to=[{"cluster": "inside", "when": {"client_ip": ["10.0.0.0/8"]}}, {"cluster": "outside"}])
    ]
    await envoy.serve({**document, "server": _PROXIES})
    assert (await ask(envoy.address, get("/", "X-Forwarded-For: 10.1.2.3"))).body == _LONG
    assert (await ask(envoy.address, get("/", "X-Forwarded-For: 11.1.2.3"))).body == b"outside"


def test_clients_on_unix_sockets_are_not_matched_and_that_is_said() -> None:
    table = snapshot_of(
        {
            "clusters": {"app": cluster(9001)},
            "routes": [{"name": "app", "match": {"path_prefix": "/", "client_ip": ["unix:"]}, "to": "app"}],
        }
    ).table
    (finding,) = find_refusals(table)
    assert finding.location == ("routes", 0, "match", "client_ip")
