"""Discovery over gRPC, by a real client: one suite over its own registry and over a real Consul."""

import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from google.rpc import (  # pyright: ignore[reportMissingTypeStubs] - made by protoc, without types
    error_details_pb2,
    status_pb2,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from toska_common.protos import discovery_v1_pb2, discovery_v1_pb2_grpc
from toska_tests.clients import http_client
from toska_tests.discovery_rest import SERVICES
from toska_tests.discovery_rig import RunningDiscovery, RunningRegistry, discovery_in
from toska_tests.parts import ROOT
from toska_tests.ports import free_port
from toska_tests.waiting import unhindered_s, wait_until

pb: Any = discovery_v1_pb2
stubs: Any = discovery_v1_pb2_grpc
SERVICE = "toska.discovery.v1.ServiceDiscovery"
WITHIN_S = 30.0
END: Any = vars(grpc.aio)["EOF"]  # not in the types


@pytest.fixture(scope="module", params=["embedded", "consul"])
async def discovery(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[RunningDiscovery]:
    """Discovery with gRPC on each registry in turn."""
    options: dict[str, Any] = {"grpc_port": free_port()}
    if request.param == "consul":
        registry: RunningRegistry = request.getfixturevalue("consul_registry")
        options["registry_url"] = registry.url.replace("http://", "consul://")
    async with discovery_in(tmp_path_factory.mktemp("home"), **options) as running:
        yield running


@pytest.fixture(scope="module")
async def channel(discovery: RunningDiscovery) -> AsyncGenerator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{discovery.settings.grpc_port}") as opened:
        with anyio.fail_after(WITHIN_S):
            await opened.channel_ready()
        yield opened


class Client:
    """Calls with one token."""

    def __init__(self, channel: Any, token: str) -> None:
        self._stub = stubs.ServiceDiscoveryStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def call(self, method: str, request: Any, timeout: float = WITHIN_S) -> Any:
        return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=timeout)

    def watch(self, **fields: Any) -> Any:
        return self._stub.Watch(pb.WatchRequest(**fields), metadata=self._metadata, timeout=WITHIN_S)

    async def refusal(self, method: str, request: Any, **options: Any) -> tuple[grpc.StatusCode, str, list[str]]:
        """The code, the reason and the wrong fields of a call that is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, request, **options)
        info: Any = error_details_pb2.ErrorInfo()
        bad: Any = error_details_pb2.BadRequest()
        status: Any = status_pb2.Status()
        status.ParseFromString(dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"])
        for detail in status.details:
            detail.Unpack(info if detail.Is(info.DESCRIPTOR) else bad)
        assert (info.domain, status.message) == ("toska", caught.value.details())
        return caught.value.code(), info.reason, [violation.field for violation in bad.field_violations]


@pytest.fixture
def client(discovery: RunningDiscovery, channel: Any) -> Client:
    """With the join token, which is all that an app has."""
    return Client(channel, discovery.credentials.join)


def registration(name: str, **fields: Any) -> Any:
    said: dict[str, Any] = {"service": name, "address": "127.0.0.1", "port": free_port(), **fields}
    return pb.RegisterRequest(registration=pb.Registration(**said))


async def discovered(client: Client, name: str, **fields: Any) -> list[Any]:
    return list((await client.call("Discover", pb.DiscoverRequest(name=name, **fields))).instances)


async def wait_for(client: Client, name: str, count: int) -> list[Any]:
    found: list[Any] = []

    async def are_there() -> bool:
        found[:] = await discovered(client, name)
        return len(found) == count

    await wait_until(are_there, what=f"{count} instances of {name}")
    return found


async def test_an_instance_is_registered_discovered_renewed_and_deregistered(client: Client, name: str) -> None:
    said: dict[str, Any] = {"tags": ["a"], "metadata": {"team": "x"}, "weight": 3, "ttl_seconds": 20.0, "zone": "z-1"}
    said |= {"version": "1.0", "capabilities": ["pdf"], "depends_on": ["bank"], "sla": {"p99": "50 ms"}, "priority": 7}
    instance = (await client.call("Register", registration(name, id=f"{name}-1", **said))).instance
    assert (instance.id, instance.health, instance.score) == (f"{name}-1", pb.HEALTH_PASSING, 1)
    for field, value in said.items():
        found = getattr(instance, field)
        if field == "metadata":
            assert value.items() <= dict(found).items()
        else:
            assert (
                list(found) if isinstance(value, list) else dict(found) if isinstance(value, dict) else found
            ) == value
    assert instance.HasField("registered_at")
    (listed,) = await wait_for(client, name, 1)
    assert listed == instance
    report = pb.Report(score=0.9, in_flight=4, callers={"shop": 12})
    beat = await client.call("Heartbeat", pb.HeartbeatRequest(id=instance.id, report=report))
    assert (beat.id, beat.ttl_seconds) == (instance.id, 20)
    await wait_until(lambda: _reports(client, name, 4))
    await client.call("Deregister", pb.DeregisterRequest(id=instance.id))
    await wait_for(client, name, 0)


async def _reports(client: Client, name: str, in_flight: int) -> bool:
    (instance,) = await discovered(client, name)
    return (instance.report.in_flight, instance.score) == (in_flight, 0.9)


async def test_rest_and_grpc_show_the_same(discovery: RunningDiscovery, client: Client, name: str) -> None:
    await client.call("Register", registration(name, id=f"{name}-1", region="eu"))
    async with http_client(base_url=discovery.rest) as http:
        instance = (await http.get(f"{SERVICES}/{name}-1")).json()
    assert (instance["service"], instance["region"]) == (name, "eu")


async def test_services_are_listed_with_filters_and_pages(client: Client, name: str) -> None:
    for letter in "abc":
        await client.call("Register", registration(f"{name}-{letter}", id=f"{name}-{letter}-1", zone=f"zone-{letter}"))
        await wait_for(client, f"{name}-{letter}", 1)
    asked = pb.Filter(text=name)
    first = await client.call("ListServices", pb.ListServicesRequest(filter=asked, page_size=2, sort="-name"))
    assert ([service.name[-1] for service in first.services], first.total_size) == (["a", "b"], 3)
    rest = pb.ListServicesRequest(filter=asked, page_size=2, sort="-name", page_token=first.next_page_token)
    second = await client.call("ListServices", rest)
    assert ([service.name[-1] for service in second.services], second.next_page_token) == (["c"], "")
    in_zone = pb.ListServicesRequest(filter=pb.Filter(zone="zone-b", text=name, health=[pb.HEALTH_PASSING]))
    (service,) = (await client.call("ListServices", in_zone)).services
    assert (service.name, service.passing, list(service.zones)) == (f"{name}-b", 1, ["zone-b"])


async def test_metadata_is_merged_replaced_and_guarded_by_its_version(client: Client, name: str) -> None:
    own_id = (await client.call("Register", registration(name, metadata={"a": "1", "b": "2"}))).instance.id
    first = await client.call("GetServiceMetadata", pb.GetServiceMetadataRequest(id=own_id))
    assert (first.version, dict(first.metadata)) == (1, {"a": "1", "b": "2"})
    change = pb.UpdateServiceMetadataRequest(id=own_id, metadata={"c": "3"}, remove=["a"], if_version=1)
    merged = await client.call("UpdateServiceMetadata", change)
    assert (merged.version, dict(merged.metadata)) == (2, {"b": "2", "c": "3"})
    code, reason, _ = await client.refusal("UpdateServiceMetadata", change)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION_FAILED")
    whole = pb.UpdateServiceMetadataRequest(id=own_id, metadata={"only": "this"}, replace=True)
    assert dict((await client.call("UpdateServiceMetadata", whole)).metadata) == {"only": "this"}


@pytest.mark.parametrize(
    ("method", "asked", "code", "reason", "fields"),
    [
        (
            "Register",
            pb.RegisterRequest(),
            "INVALID_ARGUMENT",
            "INVALID_INPUT",
            ["registration.service", "registration.address", "registration.port"],
        ),
        ("Register", registration("Not A Name"), "INVALID_ARGUMENT", "INVALID_INPUT", ["registration.service"]),
        (
            "Register",
            registration("x", address="169.254.169.254"),
            "INVALID_ARGUMENT",
            "INVALID_INPUT",
            ["registration.address"],
        ),
        ("Register", registration("x", zone="a b"), "INVALID_ARGUMENT", "INVALID_INPUT", ["registration.zone"]),
        ("Register", registration("x", id="graph"), "INVALID_ARGUMENT", "INVALID_INPUT", ["registration.id"]),
        ("Register", registration("toska-x"), "PERMISSION_DENIED", "FORBIDDEN", []),
        ("Deregister", pb.DeregisterRequest(id="nobody"), "NOT_FOUND", "UNKNOWN_INSTANCE", []),
        ("Deregister", pb.DeregisterRequest(), "INVALID_ARGUMENT", "INVALID_INPUT", ["id"]),
        ("Heartbeat", pb.HeartbeatRequest(id="nobody"), "NOT_FOUND", "UNKNOWN_INSTANCE", []),
        (
            "Heartbeat",
            pb.HeartbeatRequest(id="x", report=pb.Report(score=2)),
            "INVALID_ARGUMENT",
            "INVALID_INPUT",
            ["report.score"],
        ),
        ("Discover", pb.DiscoverRequest(), "INVALID_ARGUMENT", "INVALID_INPUT", ["name"]),
        ("Discover", pb.DiscoverRequest(name="x", limit=-1), "INVALID_ARGUMENT", "INVALID_INPUT", ["limit"]),
        (
            "Discover",
            pb.DiscoverRequest(name="x", filter=pb.Filter(health=[7])),
            "INVALID_ARGUMENT",
            "INVALID_INPUT",
            ["filter.health"],
        ),
        ("ListServices", pb.ListServicesRequest(sort="beauty"), "INVALID_ARGUMENT", "INVALID_INPUT", ["sort"]),
        ("ListServices", pb.ListServicesRequest(page_token="x"), "INVALID_ARGUMENT", "INVALID_INPUT", ["page_token"]),
        ("GetServiceMetadata", pb.GetServiceMetadataRequest(id="nobody"), "NOT_FOUND", "UNKNOWN_INSTANCE", []),
        (
            "UpdateServiceMetadata",
            pb.UpdateServiceMetadataRequest(id="x", metadata={"toska-zone": "z"}),
            "INVALID_ARGUMENT",
            "INVALID_INPUT",
            ["metadata.toska-zone"],
        ),
    ],
)
async def test_what_is_wrong_is_told_in_the_details_of_the_status(
    client: Client, method: str, asked: Any, code: str, reason: str, fields: list[str]
) -> None:
    found = await client.refusal(method, asked)
    assert (found[0].name, found[1], found[2]) == (code, reason, fields)


async def test_changes_need_a_token_and_reads_do_not(channel: Any, name: str) -> None:
    nobody, stranger = Client(channel, ""), Client(channel, "not-ours")
    for method, asked in (
        ("Register", registration(name)),
        ("Deregister", pb.DeregisterRequest(id="x")),
        ("Heartbeat", pb.HeartbeatRequest(id="x")),
        ("UpdateServiceMetadata", pb.UpdateServiceMetadataRequest(id="x")),
    ):
        for who in (nobody, stranger):
            assert (await who.refusal(method, asked))[0] is grpc.StatusCode.UNAUTHENTICATED
    assert await discovered(nobody, name) == []


async def test_a_call_ends_with_its_deadline_while_the_registry_does_not_answer(tmp_path: Path) -> None:
    async def say_nothing(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    port = free_port()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    silent = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, say_nothing)
        async with (
            discovery_in(tmp_path, grpc_port=port, registry_url=f"consul://127.0.0.1:{silent}"),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened,
        ):
            with anyio.fail_after(WITHIN_S):
                await opened.channel_ready()
            with anyio.fail_after(20), pytest.raises(grpc.aio.AioRpcError) as caught:
                await Client(opened, "").call("ListServices", pb.ListServicesRequest(), timeout=0.3)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        group.cancel_scope.cancel()


async def test_a_watch_tells_of_changes_and_goes_on_where_it_was(client: Client, name: str) -> None:
    watch = client.watch(name=name)
    ready = await watch.read()
    assert ready.type == pb.ServiceEvent.TYPE_READY
    await client.call("Register", registration(name, id=f"{name}-1"))
    event = await watch.read()
    assert (event.type, event.instance.id) == (pb.ServiceEvent.TYPE_REGISTERED, f"{name}-1")
    watch.cancel()
    await client.call("Deregister", pb.DeregisterRequest(id=f"{name}-1"))
    resumed = client.watch(name=name, position=event.position)
    event = await resumed.read()
    assert (event.type, event.instance.id) == (pb.ServiceEvent.TYPE_DEREGISTERED, f"{name}-1")
    resumed.cancel()
    lost = client.watch(position="nonsense")
    assert (await lost.read()).type == pb.ServiceEvent.TYPE_RESET
    lost.cancel()


async def test_health_and_reflection_answer(channel: Any) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    messages: Any = health_pb2

    async def is_serving() -> bool:
        answer = await stub.Check(messages.HealthCheckRequest(service=SERVICE))
        return answer.status == messages.HealthCheckResponse.SERVING

    await wait_until(is_serving)


async def test_reflection_tells_the_services_and_their_methods(discovery: RunningDiscovery) -> None:
    def ask() -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(f"127.0.0.1:{discovery.settings.grpc_port}") as plain:
            database: Any = ProtoReflectionDescriptorDatabase(plain)
            file = database.FindFileContainingSymbol(SERVICE)
            return sorted(database.get_services()), [method.name for method in file.service[0].method]

    services, methods = await anyio.to_thread.run_sync(ask)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)
    assert methods == [
        "Register",
        "Deregister",
        "Discover",
        "Heartbeat",
        "ListServices",
        "GetServiceMetadata",
        "UpdateServiceMetadata",
        "Watch",
    ]


async def test_watches_end_in_order_when_discovery_stops(tmp_path: Path) -> None:
    async def at_once() -> bool:
        port = free_port()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
            client = Client(opened, "")
            async with discovery_in(tmp_path, grpc_port=port):
                with anyio.fail_after(WITHIN_S):
                    await opened.channel_ready()
                watches = [client.watch() for _ in range(5)]
                for watch in watches:
                    await watch.read()
                stopping_at = unhindered_s()
            took = unhindered_s() - stopping_at
            for watch in watches:
                while await watch.read() is not END:
                    pass
                assert await watch.code() is grpc.StatusCode.OK
        return took < 2

    await wait_until(at_once, what="an end that no watch holds up")


async def test_discovery_is_not_ready_before_grpc_is(tmp_path: Path) -> None:
    async with discovery_in(tmp_path, grpc_port=free_port()) as running, http_client() as http:

        async def is_ready() -> bool:
            return (await http.get(f"{running.rest}/health/ready")).status_code == 200

        await wait_until(is_ready)
        metrics = (await http.get(f"{running.rest}/metrics")).text
        assert "grpc" in (await http.get(f"{running.rest}/health/detailed")).json()["components"]
        assert "toska_discovery_rpcs" in metrics


async def test_a_grpc_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    from toska_tests.discovery_rig import discovery_process

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
        with discovery_process(tmp_path, TOSKA_DISCOVERY_GRPC_PORT=str(port)) as process:
            assert await process.program.exit_code() == 2
            assert f"cannot listen on 127.0.0.1:{port} for gRPC" in process.program.stderr


def test_the_generated_code_is_that_of_the_contract(tmp_path: Path) -> None:
    subprocess.run([ROOT / "tools" / "protos", tmp_path], check=True, timeout=60)
    made = sorted((tmp_path / "toska_common" / "protos").iterdir())
    assert [path.name for path in made] == [
        *("discovery_v1_pb2.py", "discovery_v1_pb2_grpc.py", "events_v1_pb2.py", "events_v1_pb2_grpc.py")
    ]
    for path in made:
        assert path.read_text() == (ROOT / "libs/common/toska_common/protos" / path.name).read_text(), (
            "run tools/protos"
        )


def test_who_joins_a_mesh_loads_no_grpc() -> None:
    code = "import sys; from toska_common import Mesh; Mesh; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout
    assert not re.search(r"\b(grpc|google\.protobuf)\b", loaded.replace("toska_common.mesh.grpc_health", ""))
