"""The router's own routing over xDS: to an Envoy that is bootstrapped by it, and to gRPC's own clients."""

import json
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.errors import ConfigurationError
from toska_common.security import ManagementPolicy
from toska_common.settings import load_settings
from toska_router.programming.access import admit_by
from toska_router.settings import Settings
from toska_router.xds import AccessRefused, Caller, types
from toska_tests.ports import free_port
from toska_tests.programs import running
from toska_tests.raw_http import response, upstream
from toska_tests.routers import RunningRouter, StartRouter
from toska_tests.waiting import wait_until
from toska_tests.xds_clients import xds_client
from toska_tests.xds_envoys import RoutedEnvoy, routed_envoy

WITHIN_S = 30.0
OLD = {"match": {"path_prefix": "/old"}, "to": "legacy"}
_CALLER = Path(__file__).parents[1] / "toska_tests" / "apps" / "xds_caller.py"


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


def to_port(port: int) -> dict[str, Any]:
    return {"endpoints": [{"address": "127.0.0.1", "port": port}]}


async def served(router: RunningRouter) -> dict[str, Any]:
    """The status of xDS, once it is listening and has something."""

    async def listens() -> bool:
        status = await router.read("xds")
        return status["listening"] and status["version"] != ""

    await wait_until(listens, within=WITHIN_S)
    return await router.read("xds")


class Edge(NamedTuple):
    """A router, and an Envoy that serves its route `/old`, to the cluster `legacy` with the app `one`."""

    router: RunningRouter
    envoy: RoutedEnvoy
    listen: int
    one: int
    two: int

    async def lead_to(self, port: int) -> None:
        """Have the cluster lead to another app."""
        await self.router.put("clusters/legacy", to_port(port))

    async def until_answered(self, path: str, body: bytes) -> None:
        """Wait until Envoy answers so."""
        await self.envoy.until_answered(path, body, WITHIN_S)


@pytest.fixture
async def edge(start_router: StartRouter, tmp_path: Path) -> AsyncGenerator[Edge]:
    listen = free_port()
    async with (
        upstream(response(200, body=b"one")) as one,
        upstream(response(200, body=b"two")) as two,
        start_router(xds=True, xds_port=0, xds_listen=f"127.0.0.1:{listen}") as router,
    ):
        await router.put("clusters/legacy", to_port(one.port))
        await router.put("routes/old", OLD)
        await served(router)
        async with routed_envoy(router, tmp_path, listen, "edge-1") as envoy:
            yield Edge(router, envoy, listen, one.port, two.port)


async def test_an_envoy_that_the_router_bootstraps_serves_its_routes_and_follows_them(edge: Edge) -> None:
    await edge.until_answered("/old", b"one")
    await edge.lead_to(edge.two)
    await edge.until_answered("/old", b"two")
    await edge.router.put("routes/new", {"match": {"path_prefix": "/new"}, "to": "legacy"})
    await edge.until_answered("/new", b"two")

    async def is_current() -> bool:
        clients = (await edge.router.read("xds"))["clients"]
        return bool(clients) and clients[0]["up_to_date"] and len(clients[0]["types"]) == 4

    await wait_until(is_current, within=WITHIN_S)
    status = await edge.router.read("xds")
    (client,) = status["clients"]
    assert (client["node"], client["incremental"], client["aggregated"]) == ("edge-1", True, True)
    assert status["envoys_listen_on"] == [f"127.0.0.1:{edge.listen}"]
    assert status["problems"] == []
    assert status["refusals"] == []
    metrics = (await edge.router.http.get("/metrics")).text
    assert 'toska_router_xds_acknowledgements_total{type="Cluster"}' in metrics
    assert "toska_router_xds_streams " in metrics


async def test_what_envoy_cannot_do_is_named_and_it_goes_on_with_what_it_has(edge: Edge) -> None:
    await edge.until_answered("/old", b"one")
    await edge.router.put("routes/old", {**OLD, "policies": {"cache": {}}})

    async def is_refused() -> bool:
        return bool((await edge.router.read("xds"))["problems"])

    await wait_until(is_refused, within=WITHIN_S)
    (problem,) = (await edge.router.read("xds"))["problems"]
    assert problem["field"].endswith("policies.cache")
    assert 'route "old"' in problem["reason"]
    await edge.lead_to(edge.two)
    await edge.until_answered("/old", b"two")


async def test_a_grpc_client_dials_a_service_of_the_mesh(
    start_router: StartRouter,
    consul: ConsulClient,
    instance: Callable[..., ServiceRegistration],
    tmp_path: Path,
) -> None:
    async def who(_request: bytes, _context: Any) -> bytes:
        return b"orders"

    made: Any = grpc
    server = grpc.aio.server()
    handlers = {"Who": made.unary_unary_rpc_method_handler(who)}
    server.add_generic_rpc_handlers((made.method_handlers_generic_handler("echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with start_router(xds=True, xds_port=0) as router:
            await consul.register_service(instance("orders", port))
            await router.put("clusters/orders", {"service": "orders"})
            await served(router)
            file = tmp_path / "xds.json"
            file.write_text(json.dumps(await router.read("xds/bootstrap/grpc")))
            environment = {"GRPC_XDS_BOOTSTRAP": str(file)}
            with running([sys.executable, _CALLER, "xds:///orders"], tmp_path, environment=environment) as caller:
                assert await caller.line(within=WITHIN_S) == "orders"
    finally:
        await server.stop(None)


async def test_a_router_without_xds_says_how_to_get_it(start_router: StartRouter) -> None:
    async with start_router() as router:
        assert not (await router.read("xds"))["listening"]
        answer = await router.http.get("/api/v1/xds/bootstrap/envoy")
        assert answer.status_code == 404
        assert "TOSKA_ROUTER_XDS=true" in answer.json()["detail"]


async def test_secrets_need_the_admin_token_on_this_machine_too(start_router: StartRouter, home: Path) -> None:
    async with start_router(xds=True, xds_port=0) as router:
        port = (await served(router))["port"]
        async with xds_client(port) as stranger:
            await stranger.say(type_url=types.CLUSTER)
            assert (await stranger.hear()).type_url == types.CLUSTER
            await stranger.say(type_url=types.SECRET, resource_names=["key"])
            assert await stranger.code() is grpc.StatusCode.UNAUTHENTICATED
        async with xds_client(port, token=(home / "admin.token").read_text().strip()) as friend:
            await friend.say(type_url=types.SECRET)
            assert (await friend.hear()).type_url == types.SECRET


@pytest.mark.parametrize(
    ("host", "token", "verified", "outcome"),
    [
        ("127.0.0.1", "", False, "in"),
        ("0.0.0.0", "", False, "unknown"),
        ("0.0.0.0", "join", False, "known"),
        ("0.0.0.0", "admin", False, "in"),
        ("0.0.0.0", "", True, "in"),
        ("127.0.0.1", "wrong", False, "unknown"),
    ],
)
def test_who_is_no_friend_stays_outside(
    host: str, token: str, verified: bool, outcome: str, credentials_of_a_mesh: Any
) -> None:
    admit = admit_by(ManagementPolicy(credentials=credentials_of_a_mesh, host=host))
    tokens = {"admin": credentials_of_a_mesh.admin, "join": credentials_of_a_mesh.join}
    metadata = {"authorization": f"Bearer {tokens.get(token, token)}"} if token else {}
    caller = Caller(metadata, verified)
    if outcome == "in":
        admit(caller, "")
        return
    with pytest.raises(AccessRefused) as refused:
        admit(caller, "")
    assert refused.value.known == (outcome == "known")
    assert credentials_of_a_mesh.admin not in repr(caller)


@pytest.fixture
def credentials_of_a_mesh(home: Path) -> Any:
    return Settings(home=home).credentials()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"xds_listen": "8080"}, "write host:port"),
        ({"xds_listen": "127.0.0.1:70000"}, "write host:port"),
        ({"xds_certificate": "cert.pem"}, "go together"),
        ({"xds_client_ca": "ca.pem"}, "there is no TLS without it"),
    ],
)
def test_settings_that_make_no_sense_are_refused(home: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        load_settings(Settings, home=home, **settings)
