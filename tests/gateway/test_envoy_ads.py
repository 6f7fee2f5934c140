"""The stream over which the gateway tells its Envoy what to do, heard by a client of gRPC's own."""

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import grpc
from toska_common.envoy.resources import CLUSTER, ENDPOINTS, ROUTES
from toska_common.envoy_api import message_class
from toska_gateway.envoy.ads import AdsServer

_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


async def test_what_is_subscribed_to_again_is_sent_again(tmp_path: Path) -> None:
    server = AdsServer(tmp_path / "ads.sock")
    await server.put(ROUTES, {"a": {"name": "a"}, "b": {"name": "b"}})
    await server.open()
    request: Any = message_class("envoy.service.discovery.v3.DiscoveryRequest")
    response: Any = message_class("envoy.service.discovery.v3.DiscoveryResponse")
    library: Any = grpc
    async with library.aio.insecure_channel(f"unix:{tmp_path / 'ads.sock'}") as channel:
        call = channel.stream_stream(
            _METHOD, request_serializer=_serialized, response_deserializer=response.FromString
        )()
        with anyio.fail_after(20):
            nonce = ""
            for names in (["a"], ["b"], ["b", "a"]):
                await call.write(request(type_url=ROUTES, resource_names=names, response_nonce=nonce))
                told = await call.read()
                nonce = told.nonce
                assert len(told.resources) == 1
            for _ in range(2):  # the answer, and then the very same again, which is none
                await call.write(request(type_url=ROUTES, resource_names=["b", "a"], response_nonce=nonce))
            assert len((await call.read()).resources) == 2
        call.cancel()
    await server.aclose()


async def test_a_cluster_that_changed_is_told_its_endpoints_again_also_beside_a_new_one(tmp_path: Path) -> None:
    server = AdsServer(tmp_path / "ads.sock")
    await server.put(CLUSTER, {"a": {"name": "a"}})
    await server.put(ENDPOINTS, {"a": {"cluster_name": "a"}, "b": {"cluster_name": "b"}})
    await server.open()
    request: Any = message_class("envoy.service.discovery.v3.DiscoveryRequest")
    response: Any = message_class("envoy.service.discovery.v3.DiscoveryResponse")
    library: Any = grpc
    async with library.aio.insecure_channel(f"unix:{tmp_path / 'ads.sock'}") as channel:
        call = channel.stream_stream(
            _METHOD, request_serializer=_serialized, response_deserializer=response.FromString
        )()
        with anyio.fail_after(20):
            for kind, names in ((CLUSTER, []), (ENDPOINTS, ["a"])):
                await call.write(request(type_url=kind, resource_names=names))
                told = await call.read()
                await call.write(request(type_url=kind, resource_names=names, response_nonce=told.nonce))
            await server.put(CLUSTER, {"a": {"name": "a", "alt_stat_name": "other"}, "b": {"name": "b"}})
            while not server.send(CLUSTER):
                await anyio.lowlevel.checkpoint()
            assert (await call.read()).type_url == CLUSTER  # which is not taken before there are endpoints
            await call.write(request(type_url=ENDPOINTS, resource_names=["a", "b"], response_nonce=told.nonce))
            assert len((await call.read()).resources) == 2
        call.cancel()
    await server.aclose()


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()
