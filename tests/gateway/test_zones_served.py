"""Endpoints nearby go first: the gateway's own zone, as long as it can carry what comes."""

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from toska_gateway.worker.explaining import explain
from toska_tests.gateways import plane_here, route, running_gateway
from toska_tests.raw_http import connected, get, response, upstream


@contextlib.asynccontextmanager
async def endpoints(*zones: str) -> AsyncGenerator[list[dict[str, Any]]]:
    """An endpoint in each zone, which answers with that."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(upstream(response(200, body=zone.encode()))) for zone in zones]
        yield [
            {"address": "127.0.0.1", "port": server.port, "zone": zone}
            for server, zone in zip(servers, zones, strict=True)
        ]


def document(members: Sequence[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    return {"clusters": {"app": {"endpoints": list(members), **settings}}, "routes": [route("all")]}


async def answers(address: tuple[str, int], count: int) -> Counter[str]:
    """In which zones so many requests were answered."""
    async with connected(address) as client:
        return Counter([(await client.ask(get())).body.decode() for _ in range(count)])


async def test_a_gateway_prefers_the_endpoints_of_its_own_zone() -> None:
    async with endpoints("eu-1", "eu-2") as members, running_gateway(zone="eu-2") as gateway:
        await gateway.serve(document(members, zone="local"))
        assert await answers(gateway.address, 30) == {"eu-2": 30}
        await gateway.serve(document(members, zone="eu-1"))
        assert await answers(gateway.address, 30) == {"eu-1": 30}
        await gateway.serve(document(members))
        assert set(await answers(gateway.address, 60)) == {"eu-1", "eu-2"}


async def test_what_the_zone_cannot_carry_spills_over() -> None:
    async with endpoints("eu-1", "eu-1", "eu-2") as members:
        routing = document(members, zone="eu-1")
        async with plane_here(routing) as (plane, address):
            keys = [key for key, one in plane.clusters["app"].endpoints.items() if one.zone == "eu-1"]
            plane.judge("app", keys[:1])  # half of them, and 70% would do: two sevenths go elsewhere
            assert 40 < (await answers(address, 280))["eu-2"] < 120
            plane.judge("app", keys[:2])
            assert await answers(address, 20) == {"eu-2": 20}
            plane.judge("app", [])
            assert await answers(address, 20) == {"eu-1": 20}


async def test_a_gateway_without_a_zone_prefers_nobody() -> None:
    async with endpoints("eu-1", "eu-2") as members, plane_here(document(members, zone="local")) as (_, address):
        assert set(await answers(address, 60)) == {"eu-1", "eu-2"}


async def test_it_is_told_whose_zone_goes_first() -> None:
    async with endpoints("eu-1", "eu-2") as members:
        routing = document(members, zone="local")
        async with plane_here(routing, zone="eu-1") as (plane, _):
            [told] = explain(plane, get(), "127.0.0.1", "http")["clusters"]
    assert {one["zone"]: (one["share"], one["state"]) for one in told["endpoints"]} == {
        "eu-1": (1.0, "healthy"),
        "eu-2": (0.0, "healthy, but zone eu-1 goes first"),
    }
