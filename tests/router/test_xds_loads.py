"""Load reports of a real Envoy and of gRPC's own client: by cluster, and by endpoint for who selects."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from toska_common.envoy_api import message_class
from toska_common.errors import ConfigurationError
from toska_common.settings import load_settings
from toska_router.programming.loads import LoadBook
from toska_router.settings import Settings
from toska_router.xds import AccessRefused, Caller, ClusterLoad, EndpointLoad, LoadReports, Node, XdsServer
from toska_router.xds.loads import METHOD, SERVICE, read_load_request, write_load_response
from toska_tests.grpc_servers import named_server
from toska_tests.ports import free_port
from toska_tests.programs import running
from toska_tests.raw_http import response, upstream
from toska_tests.routers import RunningRouter, StartRouter
from toska_tests.waiting import wait_until
from toska_tests.xds_clients import xds_client
from toska_tests.xds_envoys import RoutedEnvoy, routed_envoy

WITHIN_S = 30.0
_CALLER = Path(__file__).parents[1] / "toska_tests" / "apps" / "xds_caller.py"


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


def to_port(port: int) -> dict[str, Any]:
    return {"endpoints": [{"address": "127.0.0.1", "port": port}]}


async def test_what_envoy_and_grpc_have_sent_is_told_by_cluster_and_to_who_selects(
    start_router: StartRouter, tmp_path: Path
) -> None:
    listen = free_port()
    options = {"xds": True, "xds_port": 0, "xds_listen": f"127.0.0.1:{listen}", "xds_load_interval": "1s"}
    async with (
        upstream(response(503, body=b"no")) as web,
        named_server("one") as port,
        start_router(**options) as router,
    ):
        await router.put("clusters/web", to_port(web.port))
        await router.put("clusters/called", to_port(port))
        policies = {"retry": {"attempts": 1}}
        await router.put("routes/web", {"match": {"path_prefix": "/"}, "to": "web", "policies": policies})

        async def serves() -> bool:
            return (await router.read("xds"))["version"] != ""

        await wait_until(serves, within=WITHIN_S)
        file = tmp_path / "xds.json"
        file.write_text(json.dumps(await router.read("xds/bootstrap/grpc")))
        calling = [sys.executable, _CALLER, "xds:///called", "20"]
        async with routed_envoy(router, tmp_path, listen, "edge-1") as envoy:
            with running(calling, tmp_path, environment={"GRPC_XDS_BOOTSTRAP": str(file)}):
                await check_loads(router, envoy)


async def check_loads(router: RunningRouter, envoy: RoutedEnvoy) -> None:
    await envoy.until_answered("/", b"no", WITHIN_S)

    async def is_told() -> bool:
        await envoy.http.get("/")  # what it sent before it was told to count is not reported
        found = {one["cluster"]: one for one in (await router.read("xds"))["loads"]}
        web, called = found.get("web", {}), found.get("called", {})
        return web.get("failures", 0) == web.get("requests", 0) > 0 and called.get("requests", 0) >= 20

    await wait_until(is_told, within=WITHIN_S)
    loads = {one["cluster"]: one for one in (await router.read("xds"))["loads"]}
    assert (loads["called"]["failures"], loads["called"]["dropped"]) == (0, 0)
    chosen = await router.http.post("/api/v1/select", json={"cluster": "web"}, headers=router.token("join"))
    figures = chosen.json()["figures"]
    assert figures["requests"] == figures["failures"] > 0
    assert figures["latency_seconds"] is None
    metrics = (await router.http.get("/metrics")).text
    assert 'toska_router_xds_requests_total{cluster="called"}' in metrics


async def test_a_report_needs_who_may_and_has_to_be_one() -> None:
    taken: list[ClusterLoad] = []

    def admit(caller: Caller, _type_url: str) -> None:
        if not caller.metadata.get("authorization"):
            raise AccessRefused("send a token")

    server = XdsServer(admit=admit, loads=LoadReports(lambda _node, _peer, loads: taken.extend(loads), 1.0))
    async with server.listening("127.0.0.1", 0) as port:
        async with xds_client(port, path=f"/{SERVICE}/{METHOD}") as stranger:
            assert await stranger.code() is grpc.StatusCode.UNAUTHENTICATED
        async with xds_client(port, path=f"/{SERVICE}/{METHOD}", token="x") as friend:
            await friend.write(b"\xff\xff")
            assert await friend.code() is grpc.StatusCode.INVALID_ARGUMENT
        async with xds_client(port, path=f"/{SERVICE}/{METHOD}", token="x") as friend:
            await friend.write(report())
            await wait_until(lambda: len(taken) == 1, within=WITHIN_S)
    async with XdsServer().listening("127.0.0.1", 0) as port, xds_client(port, path=f"/{SERVICE}/{METHOD}") as nobody:
        with suppress(grpc.aio.AioRpcError):  # where the answer comes before it was written
            await nobody.write(report())
        assert await nobody.code() is grpc.StatusCode.UNIMPLEMENTED


def report() -> bytes:
    message = message_class("envoy.service.load_stats.v3.LoadStatsRequest")()
    message.node.id = "edge-1"
    stats = message.cluster_stats.add(cluster_name="grpc/orders", total_dropped_requests=2)
    for successes, errors in ((5, 1), (7, 0)):
        here = stats.upstream_locality_stats.add(total_successful_requests=successes, total_error_requests=errors)
        each = here.upstream_endpoint_stats.add(
            total_successful_requests=successes, total_error_requests=errors, total_requests_in_progress=3
        )
        each.address.socket_address.address = "127.0.0.1"
        each.address.socket_address.port_value = 9000 + successes
    return message.SerializeToString()


def test_a_report_is_read_and_asked_for() -> None:
    node, [load] = read_load_request(report())
    assert node == Node(id="edge-1", user_agent="")
    endpoints = (EndpointLoad("127.0.0.1", 9005, 6, 1, 3), EndpointLoad("127.0.0.1", 9007, 7, 0, 3))
    assert load == ClusterLoad("grpc/orders", 13, 1, 2, endpoints)
    asked = message_class("envoy.service.load_stats.v3.LoadStatsResponse").FromString(write_load_response(2.5))
    assert asked.send_all_clusters
    assert asked.load_reporting_interval.ToMilliseconds() == 2500


def test_only_what_is_of_the_routing_is_kept() -> None:
    told: list[tuple[str, str, Any]] = []

    class Selector:
        def count(self, reporter: str, cluster: str, loads: Any) -> None:
            told.append((reporter, cluster, loads))

    book = LoadBook(Selector())
    _, loads = read_load_request(report())
    book.take(Node(id="edge-1"), "ipv4:1", loads)
    assert not book.sums
    book.follow({"orders": object()})
    book.take(Node(id="edge-1"), "ipv4:1", [*loads, *loads])
    assert (book.sums["orders"].requests, book.sums["orders"].failures, book.sums["orders"].dropped) == (26, 2, 4)
    assert told[0] == ("xds edge-1 ipv4:1", "orders", {("127.0.0.1", 9005): (6, 1, 3), ("127.0.0.1", 9007): (7, 0, 3)})
    book.follow({})
    assert not book.sums


def test_an_interval_that_clients_do_not_keep_is_refused(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 1s"):
        load_settings(Settings, home=home, xds_load_interval="500ms")
