"""Clusters that take over from one another, on real traffic: how much spills over, and what a request is spared."""

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from toska_gateway.worker.explaining import explain
from toska_gateway.worker.plane import Plane
from toska_tests.gateways import Gateway, cluster, plane_here, route
from toska_tests.ports import free_ports
from toska_tests.raw_http import Upstream, ask, connected, get, response, upstream

POST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi"


@contextlib.asynccontextmanager
async def places(*names: str) -> AsyncGenerator[list[Upstream]]:
    """Upstreams that answer with their names."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(upstream(response(200, body=name.encode()))) for name in names]


def shop(*ports: int, to: Mapping[str, int], **failover: Any) -> dict[str, Any]:
    """A document in which `shop` fails over to other clusters."""
    clusters = {name: cluster(port) for name, port in to.items()}
    clusters["shop"] = cluster(*ports, failover={"to": list(to), **failover})
    return {"clusters": clusters, "routes": [route("all", to="shop")]}


async def answers(address: tuple[str, int], count: int, *fields: str) -> Counter[str]:
    """Who answers so many requests."""
    async with connected(address) as client:
        told = [await client.ask(get("/", *fields)) for _ in range(count)]
    assert {answer.status for answer in told} == {200}
    return Counter(answer.body.decode() for answer in told)


def unhealthy(plane: Plane, count: int) -> None:
    """Have so many endpoints of `shop` fail their health checks."""
    plane.judge("shop", list(plane.clusters["shop"].endpoints)[:count])


async def test_what_too_few_endpoints_cannot_carry_goes_to_the_next_cluster() -> None:
    async with places("a", "b", "c", "d", "far") as found:
        ports = [one.port for one in found[:4]]
        document = shop(*ports, to={"far": found[4].port}, below_percent=75)
        async with plane_here(document) as (plane, address):
            unhealthy(plane, 1)
            assert "far" not in await answers(address, 60)
            unhealthy(plane, 2)  # half of them are well, and three quarters would do: a third goes elsewhere
            assert 60 < (await answers(address, 300))["far"] < 140
            unhealthy(plane, 4)
            assert set(await answers(address, 20)) == {"far"}
            unhealthy(plane, 0)
            assert "far" not in await answers(address, 60)


async def test_a_number_of_endpoints_may_be_asked_for_besides() -> None:
    async with places("a", "b", "far") as (a, b, far):
        document = shop(a.port, b.port, to={"far": far.port}, min_endpoints=4)
        async with plane_here(document) as (_, address):
            assert 60 < (await answers(address, 240))["far"] < 180


async def test_the_clusters_are_asked_in_order_and_an_open_circuit_carries_nothing() -> None:
    async with places("a", "near", "far") as (a, near, far):
        document = shop(a.port, to={"near": near.port, "far": far.port})
        breaker = {"failure_ratio": 0.5, "min_requests": 1, "cooldown": "60s"}
        document["clusters"]["near"]["breaker"] = breaker
        async with plane_here(document) as (plane, address):
            unhealthy(plane, 1)
            assert set(await answers(address, 10)) == {"near"}
            circuit = plane.clusters["near"].breaker
            assert circuit is not None
            while circuit.admits(plane.now):
                circuit.report(circuit.admit(plane.now), plane.now, failed=True)
            assert set(await answers(address, 10)) == {"far"}


async def test_with_nobody_well_requests_stay_where_they_belong() -> None:
    async with places("a", "far") as (a, far), plane_here(shop(a.port, to={"far": far.port})) as (plane, address):
        unhealthy(plane, 1)
        plane.judge("far", list(plane.clusters["far"].endpoints))
        assert set(await answers(address, 5)) == {"a"}


async def test_the_same_keys_spill_over_every_time() -> None:
    async with places("a", "b", "far") as (a, b, far):
        document = shop(a.port, b.port, to={"far": far.port})
        document["clusters"]["shop"] |= {"balancer": "ring_hash", "hash_key": {"header": "x-user"}}
        async with plane_here(document) as (plane, address):
            unhealthy(plane, 1)
            seen: set[str] = set()
            for user in range(24):
                chosen = await answers(address, 4, f"X-User: {user}")
                assert len(chosen) == 1
                seen |= set(chosen)
            assert "far" in seen
            assert len(seen) == 2


async def test_clients_come_back_to_the_endpoint_that_they_had_while_it_is_well() -> None:
    async with places("a", "b", "far") as (a, b, far):
        document = shop(a.port, b.port, to={"far": far.port}, below_percent=100)
        document["clusters"]["shop"]["affinity"] = {"cookie": "home"}
        async with plane_here(document) as (plane, address):
            first = await ask(address, get())
            cookie = (first.value("set-cookie") or b"").partition(b";")[0].decode()
            other = "b" if first.body == b"a" else "a"
            port = {"a": a.port, "b": b.port}[other]
            plane.judge("shop", [f"127.0.0.1:{port}"])
            assert set(await answers(address, 20, f"Cookie: {cookie}")) == {first.body.decode()}


async def test_a_request_whose_endpoint_refuses_it_is_sent_to_the_next_cluster(gateway: Gateway) -> None:
    dead = free_ports(1)
    async with places("far") as [far]:
        await gateway.serve(shop(dead, to={"far": far.port}))
        assert (await ask(gateway.address, POST)).body == b"far"
        assert (await ask(gateway.address, POST)).body == b"far"
        assert await gateway.metric("endpoint_ejections_total", cluster="shop") == 1


async def test_a_cluster_without_endpoints_is_stood_in_for() -> None:
    async with places("a", "far") as (a, far), plane_here(shop(a.port, to={"far": far.port})) as (plane, address):
        plane.close_idle(plane.clusters["shop"].update([], "none", plane.now))
        assert set(await answers(address, 5)) == {"far"}


async def test_it_is_told_who_takes_over_and_why() -> None:
    async with places("a", "b", "far") as (a, b, far):
        document = shop(a.port, b.port, to={"far": far.port}, below_percent=100)
        async with plane_here(document) as (plane, _):
            unhealthy(plane, 1)
            told = explain(plane, get(), "127.0.0.1", "http")
            assert [(one["name"], one["share"]) for one in told["clusters"]] == [("shop", 0.5), ("far", 0.5)]
            assert told["clusters"][0]["failover"] == "1 of 2 endpoints of shop are well: it carries 50%"
            assert told["clusters"][1]["failover"] == "takes over from shop: 1 of 2 endpoints of shop are well"
