"""The xDS server over real connections: services, errors, access, slow clients."""

import socket
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from toska_common.envoy_api import message_class, pool
from toska_router.xds import (
    EVERYBODY,
    AccessRefused,
    AddressTaken,
    Caller,
    NodeRule,
    ServerTls,
    XdsServer,
    find_group,
    types,
)
from toska_router.xds.methods import Method, list_methods
from toska_tests.certificates import Authority, Pair
from toska_tests.waiting import wait_until
from toska_tests.xds_clients import XdsClient, cluster, endpoints, xds_client


def resources(*names: str, timeout_s: float = 1.0) -> dict[str, dict[str, Any]]:
    return {
        types.CLUSTER: {name: cluster(name, timeout_s=timeout_s) for name in names},
        types.ENDPOINTS: {name: endpoints(name, 9000) for name in names},
    }


def names_in(response: Any) -> list[str]:
    found: list[str] = []
    for each in response.resources:
        message = message_class("envoy.config.cluster.v3.Cluster").FromString(getattr(each, "resource", each).value)
        found.append(message.name)
    return sorted(found)


async def test_messages_pass_through_the_wire_unchanged() -> None:
    server = XdsServer()
    server.set_resources(EVERYBODY, resources("orders"))
    async with server.listening("127.0.0.1", 0) as port, xds_client(port) as client:
        await client.say(type_url=types.CLUSTER, node={"id": "envoy-1"})
        response = await client.hear()

    (packed,) = response.resources
    found = message_class("envoy.config.cluster.v3.Cluster")()
    assert packed.Unpack(found)
    assert found == cluster("orders")
    assert response.type_url == types.CLUSTER
    assert response.version_info == server.resources_for(EVERYBODY).of(types.CLUSTER).version
    assert response.control_plane.identifier == "toska-router"


async def test_the_incremental_service_sends_and_removes_single_resources() -> None:
    server = XdsServer()
    server.set_resources(EVERYBODY, resources("orders", "payments"))
    async with server.listening("127.0.0.1", 0) as port, xds_client(port, incremental=True) as client:
        await client.say(type_url=types.CLUSTER)
        first = await client.hear()
        assert sorted(each.name for each in first.resources) == names_in(first) == ["orders", "payments"]
        await client.accept(first)
        server.set_resources(EVERYBODY, resources("orders"))
        second = await client.hear()

    assert (names_in(second), list(second.removed_resources)) == ([], ["payments"])
    assert all(each.version for each in first.resources)


@pytest.mark.parametrize("method", tuple(list_methods()), ids=lambda method: method.path)
def test_every_method_is_one_of_the_api(method: Method) -> None:
    descriptors: DescriptorPool = pool()
    service: Any = descriptors.FindServiceByName(method.service)
    found = service.methods_by_name[method.name]

    assert found.input_type.name == ("DeltaDiscoveryRequest" if method.incremental else "DiscoveryRequest")


@pytest.mark.parametrize("incremental", [False, True])
async def test_each_type_has_a_service_of_its_own(incremental: bool) -> None:
    server = XdsServer()
    server.set_resources(EVERYBODY, resources("orders"))
    kind = "Delta" if incremental else "Stream"
    path = f"/envoy.service.endpoint.v3.EndpointDiscoveryService/{kind}Endpoints"
    wanted = {"resource_names_subscribe": ["orders"]} if incremental else {"resource_names": ["orders"]}
    async with (
        server.listening("127.0.0.1", 0) as port,
        xds_client(port, incremental=incremental, path=path) as client,
    ):
        await client.say(**wanted)
        response = await client.hear()

        assert (response.type_url, len(response.resources)) == (types.ENDPOINTS, 1)
        await client.say(type_url=types.CLUSTER)
        assert await client.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "serves" in await client.details()


async def test_requests_that_make_no_sense_end_the_stream_with_the_reason() -> None:
    async with XdsServer().listening("127.0.0.1", 0) as port:
        async with xds_client(port) as client:
            await client.say()
            assert await client.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert await client.details() == "a request on an aggregated stream names its type"
        async with xds_client(port) as client:
            await client.write(b"\xff\xff\xff")
            assert await client.code() is grpc.StatusCode.INVALID_ARGUMENT
        async with xds_client(port) as client:
            for number in range(65):
                await client.say(type_url=f"type.googleapis.com/made.up.T{number}")
            assert await client.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_nodes_have_the_resources_of_their_group() -> None:
    rules = [
        NodeRule("canary", metadata={"stage.name": "canary"}),
        NodeRule("edge", cluster="edge"),
        NodeRule("one", id="envoy-1", cluster="inner"),
    ]
    server = XdsServer(group_of=lambda node: find_group(node, rules))
    for group in (EVERYBODY, "canary", "edge", "one"):
        server.set_resources(group, resources(f"for-{group or 'everybody'}"))

    async def heard(**node: Any) -> list[str]:
        async with xds_client(port) as client:
            await client.say(type_url=types.CLUSTER, node=node)
            return names_in(await client.hear())

    async with server.listening("127.0.0.1", 0) as port:
        assert await heard(id="x", cluster="edge") == ["for-edge"]
        assert await heard(id="envoy-1", cluster="inner") == ["for-one"]
        assert await heard(id="x", cluster="inner") == ["for-everybody"]
        assert await heard(id="x", cluster="edge", metadata={"stage": {"name": "canary"}}) == ["for-canary"]


async def test_a_group_without_resources_has_those_of_everybody() -> None:
    server = XdsServer(group_of=lambda node: node.cluster)
    server.set_resources(EVERYBODY, resources("orders"))
    async with server.listening("127.0.0.1", 0) as port, xds_client(port) as client:
        await client.say(type_url=types.CLUSTER, node={"cluster": "new"})
        assert names_in(await client.hear()) == ["orders"]
        await wait_until(lambda: server.list_clients()[0].group == "new")


async def test_clients_are_listed_with_what_they_run_and_refuse() -> None:
    server = XdsServer()
    server.set_resources(EVERYBODY, resources("orders"))
    node = {"id": "envoy-1", "cluster": "edge", "user_agent_name": "envoy", "user_agent_version": "1.40"}
    async with server.listening("127.0.0.1", 0) as port, xds_client(port) as client:
        await client.say(type_url=types.CLUSTER, node=node)
        first = await client.hear()
        await client.accept(first)
        await wait_until(lambda: server.list_clients()[0].types[0].up_to_date)
        (status,) = server.list_clients()
        assert (status.node.id, status.node.cluster, status.node.user_agent) == ("envoy-1", "edge", "envoy/1.40")
        assert status.aggregated and not status.incremental
        (of_type,) = status.types
        assert (of_type.wildcard, of_type.accepted_version) == (True, first.version_info)

        server.set_resources(EVERYBODY, resources("orders", timeout_s=2.0))
        await client.refuse(await client.hear(), "timeout too long")
        await wait_until(lambda: bool(server.list_clients()[0].types[0].refusals))
        (refusal,) = server.list_clients()[0].types[0].refusals
        assert (refusal.names, refusal.reason) == (("orders",), "timeout too long")
        assert server.list_clients()[0].types[0].accepted_version == first.version_info
    assert server.list_clients() == []
    assert [(each.node.id, each.refusal.reason) for each in server.tally.refusals] == [("envoy-1", "timeout too long")]
    assert (server.tally.sent[types.CLUSTER], server.tally.refused[types.CLUSTER]) == (2, 1)


async def test_types_that_clients_make_up_are_answered_and_not_counted() -> None:
    server = XdsServer()
    server.set_resources(EVERYBODY, resources("orders"))
    async with server.listening("127.0.0.1", 0) as port, xds_client(port, incremental=True) as client:
        for number in range(3):
            await client.say(type_url=f"{types.PREFIX}made.up.V{number}", resource_names_subscribe=["a"])
            assert list((await client.hear()).removed_resources) == ["a"]
        await client.say(type_url=types.CLUSTER)
        await client.hear()
        assert list(server.tally.sent) == [types.CLUSTER]


async def test_nothing_is_sent_when_the_same_resources_are_set_again() -> None:
    server = XdsServer()
    assert server.set_resources(EVERYBODY, resources("orders"))
    assert not server.set_resources(EVERYBODY, resources("orders"))
    assert server.set_resources(EVERYBODY, resources("orders", timeout_s=2.0))


def test_resources_with_names_that_cannot_be_change_nothing() -> None:
    server = XdsServer()
    server.set_resources(EVERYBODY, resources("orders"))
    before = server.resources_for(EVERYBODY)
    with pytest.raises(ValueError, match="cannot be a resource's name"):
        server.set_resources(EVERYBODY, {types.CLUSTER: {"*": cluster("x")}})
    with pytest.raises(ValueError, match="either on demand or for all"):
        server.set_resources(EVERYBODY, resources("a"), on_demand=resources("a"))
    assert server.resources_for(EVERYBODY) is before


async def test_a_client_that_reads_nothing_keeps_nobody_waiting_and_is_owed_the_newest_only() -> None:
    server = XdsServer()
    many = 2_000
    server.set_resources(EVERYBODY, resources(*(f"cluster-{number}" for number in range(many))))
    narrow = {"grpc.http2.lookahead_bytes": 64 * 1024, "grpc.http2.bdp_probe": 0}
    async with (
        server.listening("127.0.0.1", 0) as port,
        xds_client(port, options=narrow) as slow,
        xds_client(port) as quick,
    ):
        await slow.say(type_url=types.CLUSTER)
        await quick.say(type_url=types.CLUSTER)
        for version in range(2, 12):
            response = await quick.hear()
            server.set_resources(
                EVERYBODY, resources(*(f"cluster-{number}" for number in range(many)), timeout_s=version)
            )
            await quick.accept(response)
        await quick.accept(await quick.hear())
        sent = server.tally.sent[types.CLUSTER]
        first = await slow.hear()
        await slow.accept(first)
        newest = await slow.hear()

    assert sent == 12  # eleven for the quick one, one for the slow one
    assert newest.version_info == server.resources_for(EVERYBODY).of(types.CLUSTER).version


async def test_a_port_that_is_taken_is_said_to_be() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressTaken, match=str(port)):
            async with XdsServer().listening("127.0.0.1", port):
                pass


async def test_strangers_are_turned_away_before_and_after_the_first_request() -> None:
    def admit(caller: Caller, type_url: str) -> None:
        token = caller.metadata.get("authorization")
        if token is None:
            raise AccessRefused("send a token")
        if type_url == types.SECRET and token != "Bearer admin":
            raise AccessRefused("secrets are not for you", known=True)

    server = XdsServer(admit=admit)
    server.set_resources(EVERYBODY, resources("orders"))
    async with server.listening("127.0.0.1", 0) as port:
        async with xds_client(port) as stranger:
            assert await stranger.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await stranger.details() == "send a token"
        async with xds_client(port, token="join") as known:
            await known.say(type_url=types.CLUSTER)
            assert names_in(await known.hear()) == ["orders"]
            await known.say(type_url=types.SECRET, resource_names=["key"])
            assert await known.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_listener_with_an_authority_takes_only_clients_with_its_certificates(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "Ours"), Authority(tmp_path, "Theirs")
    shown, friend, stranger = ours.issue("server", "localhost"), ours.issue("friend"), theirs.issue("stranger")
    authority = ours.file.read_bytes()
    seen: list[Caller] = []
    server = XdsServer(admit=lambda caller, _: seen.append(caller))
    server.set_resources(EVERYBODY, resources("orders"))
    tls = ServerTls(shown.certificate.read_bytes(), shown.key.read_bytes(), authority)

    async def hear(client: XdsClient) -> Any:
        await client.say(type_url=types.CLUSTER)
        return await client.hear()

    def credentials(pair: Pair | None = None) -> Any:
        made: Any = grpc
        if pair is None:
            return made.ssl_channel_credentials(authority)
        return made.ssl_channel_credentials(authority, pair.key.read_bytes(), pair.certificate.read_bytes())

    async with server.listening("127.0.0.1", 0, tls) as port:
        async with xds_client(port, credentials=credentials(friend)) as client:
            assert names_in(await hear(client)) == ["orders"]
        assert all(caller.verified for caller in seen)
        for wrong in (credentials(), credentials(stranger)):
            async with xds_client(port, credentials=wrong) as client:
                assert await client.code() is grpc.StatusCode.UNAVAILABLE


async def test_streams_end_when_the_server_does() -> None:
    server = XdsServer()
    async with server.listening("127.0.0.1", 0) as port:
        started = anyio.current_time()
        async with xds_client(port) as client:
            await client.say(type_url=types.CLUSTER)
            await client.hear()
            await client.done()
            assert await client.code() is grpc.StatusCode.OK
        waiting = xds_client(port)
        client = await waiting.__aenter__()
        await client.say(type_url=types.CLUSTER)
        await client.hear()
    assert await client.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert anyio.current_time() - started < 15
    await waiting.__aexit__(None, None, None)
