"""gRPC's own xDS client in a process of its own, dialling `xds:///orders`, and real gRPC servers to be found."""

import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from toska_router.xds import EVERYBODY, XdsServer, types
from toska_router.xds.targets import TargetEndpoint, build_target
from toska_tests.grpc_servers import named_server
from toska_tests.programs import Program, running
from toska_tests.waiting import wait_until

WITHIN_S = 30.0
_CALLER = Path(__file__).parents[1] / "toska_tests" / "apps" / "xds_caller.py"


def bootstrap(folder: Path, port: int) -> Path:
    """What a gRPC client reads."""
    server = {
        "server_uri": f"127.0.0.1:{port}",
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],
    }
    file = folder / "xds.json"
    file.write_text(json.dumps({"xds_servers": [server], "node": {"id": "caller-1", "cluster": "shops"}}))
    return file


async def said(program: Program, *answers: str) -> None:
    """Wait until the program has printed exactly these."""
    await wait_until(
        lambda: program.stdout.splitlines() == [*answers],
        within=WITHIN_S,
        what=f"{answers}; it said {program.stdout!r} {program.stderr[-500:]!r}",
    )


async def test_a_grpc_client_finds_follows_and_loses_a_target(tmp_path: Path) -> None:
    server = XdsServer()

    def serve(*ports: int) -> None:
        endpoints = [TargetEndpoint("127.0.0.1", port, zone="a") for port in ports]
        server.set_resources(EVERYBODY, {types.LISTENER: {}}, on_demand=build_target("orders", endpoints))

    async with named_server("one") as one, named_server("two") as two, server.listening("127.0.0.1", 0) as port:
        serve(one)
        environment = {"GRPC_XDS_BOOTSTRAP": str(bootstrap(tmp_path, port))}
        with running([sys.executable, _CALLER, "xds:///orders"], tmp_path, environment=environment) as caller:
            await said(caller, "one")
            serve(two)
            await said(caller, "one", "two")
            await wait_until(
                lambda: [each.up_to_date for each in server.list_clients()[0].types] == [True] * 4, within=WITHIN_S
            )
            (client,) = server.list_clients()
            assert (client.node.id, client.node.cluster, client.aggregated) == ("caller-1", "shops", True)
            assert {each.type_url for each in client.types} == {
                types.LISTENER,
                types.ROUTE,
                types.CLUSTER,
                types.ENDPOINTS,
            }
            assert not any(each.wildcard or each.refusals for each in client.types)
            assert client.node.user_agent.startswith("gRPC")

            server.set_resources(EVERYBODY, {})
            await wait_until(lambda: "failed" in caller.stdout, within=WITHIN_S)
            serve(one)
            await wait_until(lambda: caller.stdout.splitlines()[-1:] == ["one"], within=WITHIN_S)


async def test_a_grpc_client_goes_on_while_the_server_is_away_and_follows_its_successor(tmp_path: Path) -> None:
    async with named_server("one") as one, named_server("two") as two, AsyncExitStack() as stack:
        first, second = XdsServer(), XdsServer()
        for server, port in ((first, one), (second, two)):
            server.set_resources(EVERYBODY, {}, on_demand=build_target("orders", [TargetEndpoint("127.0.0.1", port)]))
        async with first.listening("127.0.0.1", 0) as xds_port:
            environment = {"GRPC_XDS_BOOTSTRAP": str(bootstrap(tmp_path, xds_port))}
            command = [sys.executable, _CALLER, "xds:///orders"]
            caller = stack.enter_context(running(command, tmp_path, environment=environment))
            await said(caller, "one")
        await wait_until(lambda: len(first) == 0, within=WITHIN_S)
        async with second.listening("127.0.0.1", xds_port):
            await said(caller, "one", "two")
