"""A real Envoy as the xDS server's client, in both variants: what it applies, what it refuses, and what it serves."""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from toska_router.xds import EVERYBODY, XdsServer, types
from toska_tests.ports import free_port
from toska_tests.raw_http import response, upstream
from toska_tests.waiting import wait_until
from toska_tests.xds_clients import cluster, endpoints
from toska_tests.xds_envoys import RunningEnvoy, http_listener, route_configuration, running_xds_envoy

WITHIN_S = 30.0
CHURN_S = float(os.environ.get("TOSKA_XDS_CHURN_S", "1.5"))

Resources = dict[str, dict[str, Any]]


def resources(port: int, ports: Mapping[str, int], routes: Mapping[str, str] | None = None) -> Resources:
    """A cluster for each name, and a route by prefix to each unless told otherwise."""
    wanted = routes if routes is not None else {name: name for name in ports}
    return {
        types.CLUSTER: {name: cluster(name) for name in ports},
        types.ENDPOINTS: {name: endpoints(name, at) for name, at in ports.items()},
        types.LISTENER: {"web": http_listener("web", port, "web")},
        types.ROUTE: {"web": route_configuration("web", **wanted)},
    }


def applied(server: XdsServer) -> bool:
    """Whether a client has answered everything there is, of all four types."""
    found = [each for client in server.list_clients() for each in client.types]
    return len(found) >= 4 and all(each.up_to_date for each in found)


class Rig:
    """A server, and an Envoy that follows it."""

    def __init__(
        self, server: XdsServer, envoy: RunningEnvoy, client: httpx.AsyncClient, port: int, *, incremental: bool
    ) -> None:
        self.incremental = incremental
        self.server = server
        self.envoy = envoy
        self.client = client
        self.port = port

    async def apply(self, wanted: Resources) -> None:
        """Set resources, and wait until Envoy has answered all of them."""
        self.server.set_resources(EVERYBODY, wanted)
        await wait_until(lambda: applied(self.server), within=WITHIN_S, what="Envoy answers")

    async def get(self, path: str) -> str:
        """The body of an answer that is a success."""
        answer = await self.client.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.text

    def rejected(self) -> int:
        """How many updates Envoy refused."""
        text = self.envoy.ask("/stats?filter=update_rejected")
        assert text
        return sum(int(line.rpartition(": ")[2]) for line in text.splitlines())


@pytest.fixture(scope="module", params=[False, True], ids=["state-of-the-world", "incremental"])
async def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Rig]:
    folder: Path = tmp_path_factory.mktemp("envoy")
    port = free_port()
    server = XdsServer()
    async with (
        server.listening("127.0.0.1", 0) as xds_port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN_S) as client,
    ):
        with running_xds_envoy(folder, xds_port, incremental=request.param) as envoy:
            yield Rig(server, envoy, client, port, incremental=request.param)


async def test_envoy_moves_from_one_cluster_to_another_without_a_lost_request(rig: Rig) -> None:
    async with upstream(response(200, body=b"a")) as a, upstream(response(200, body=b"b")) as b:
        await rig.apply(resources(rig.port, {"a": a.port}, {"x": "a"}))
        assert await rig.get("/x") == "a"
        bodies: list[str] = []

        async def ask() -> None:
            while True:
                bodies.append(await rig.get("/x"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            for round_ in range(4):
                name, at = ("b", b.port) if round_ % 2 == 0 else ("a", a.port)
                await rig.apply(resources(rig.port, {name: at}, {"x": name}))
                seen = len(bodies)
                await wait_until(lambda seen=seen: len(bodies) > seen + 2, within=WITHIN_S)
                assert bodies[-1] == name
            group.cancel_scope.cancel()
        assert rig.rejected() == 0


async def test_envoy_refuses_what_is_wrong_and_goes_on_with_the_rest(rig: Rig) -> None:
    async with upstream(response(200, body=b"a")) as a:
        wanted = resources(rig.port, {"a": a.port})
        await rig.apply(wanted)
        rejected = rig.rejected()
        wrong = cluster("wrong")
        wrong.connect_timeout.FromSeconds(0)  # it has to be more than nothing
        more = resources(rig.port, {"a": a.port, "c": a.port})
        more[types.CLUSTER]["wrong"] = wrong

        await rig.apply(more)

        found = [refusal for client in rig.server.list_clients() for each in client.types for refusal in each.refusals]
        assert [each.type_url for each in found] == [types.CLUSTER]
        assert "wrong" in found[0].names
        assert "ConnectTimeout" in found[0].reason
        assert rig.rejected() > rejected
        assert await rig.get("/a") == "a"
        if rig.incremental:  # a response with the state of the world is refused as a whole
            assert found[0].names == ("wrong",)
            assert await rig.get("/c") == "a"
        await rig.apply(wanted)
        assert not [each for client in rig.server.list_clients() for each in client.types if each.refusals]


async def test_endpoints_and_routes_that_keep_changing_lose_no_request(rig: Rig) -> None:
    """For longer with TOSKA_XDS_CHURN_S, in seconds."""
    async with upstream(response(200, body=b"a")) as a, upstream(response(200, body=b"b")) as b:
        await rig.apply(resources(rig.port, {"steady": a.port}))
        rejected, asked, changes = rig.rejected(), 0, 0
        ends = anyio.current_time() + CHURN_S

        async def ask() -> None:
            nonlocal asked
            while True:
                assert await rig.get("/steady") in ("a", "b")
                asked += 1

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
            while anyio.current_time() < ends or changes < 20:
                changes += 1
                others = {f"other-{number}": b.port for number in range(changes % 3)}
                at = a.port if changes % 2 else b.port
                changed = resources(rig.port, {"steady": at, f"new-{changes}": a.port, **others})
                if changes % 5 == 0:
                    changed[types.CLUSTER]["steady"] = cluster("steady", timeout_s=1 + changes % 2)
                rig.server.set_resources(EVERYBODY, changed)
                await anyio.sleep(0.02)
                if changes % 10 == 0:
                    await wait_until(lambda: applied(rig.server), within=WITHIN_S)
            await wait_until(lambda: applied(rig.server), within=WITHIN_S)
            group.cancel_scope.cancel()
        assert asked > changes
        assert rig.rejected() == rejected
        assert await rig.get(f"/new-{changes}") == "a"
        assert (
            rig.envoy.stat("cluster_manager.active_clusters") == len(rig.server.resources_for("").of(types.CLUSTER)) + 1
        )


async def test_an_envoy_that_reconnects_is_not_sent_what_it_has(tmp_path: Path) -> None:
    port = free_port()
    wanted = resources(port, {"a": 9})
    first, second = XdsServer(), XdsServer()
    for server in (first, second):
        server.set_resources(EVERYBODY, wanted)
    async with AsyncExitStack() as stack:
        async with first.listening("127.0.0.1", 0) as xds_port:
            stack.enter_context(running_xds_envoy(tmp_path, xds_port, incremental=True))
            await wait_until(lambda: applied(first), within=WITHIN_S)
        async with second.listening("127.0.0.1", xds_port):
            await wait_until(lambda: applied(second), within=WITHIN_S)
            assert not second.tally.sent

            second.set_resources(EVERYBODY, resources(port, {"a": 10}))
            await wait_until(lambda: second.tally.accepted == {types.ENDPOINTS: 1}, within=WITHIN_S)
            assert second.tally.sent == {types.ENDPOINTS: 1}
