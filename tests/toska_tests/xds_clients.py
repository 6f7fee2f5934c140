"""A client of the xDS server on a real connection, which says what a test wants it to say."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import grpc
import grpc.aio
from toska_common.envoy_api import message_class

WITHIN_S = 20.0
_DISCOVERY = "envoy.service.discovery.v3."
_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
_grpc: Any = grpc


class XdsClient:
    """One stream."""

    def __init__(self, call: Any, *, incremental: bool) -> None:
        self._call = call
        self._request = message_class(f"{_DISCOVERY}{'Delta' if incremental else ''}DiscoveryRequest")

    async def say(self, **fields: Any) -> None:
        """Send a request with these fields."""
        with anyio.fail_after(WITHIN_S):
            await self._call.write(self._request(**fields))

    async def hear(self) -> Any:
        """The next response."""
        with anyio.fail_after(WITHIN_S):
            return await self._call.read()

    async def accept(self, response: Any, **fields: Any) -> None:
        """Acknowledge a response."""
        if hasattr(response, "version_info"):
            fields["version_info"] = response.version_info
        await self.say(type_url=response.type_url, response_nonce=response.nonce, **fields)

    async def refuse(self, response: Any, reason: str, **fields: Any) -> None:
        """Refuse a response."""
        detail = message_class("google.rpc.Status")(code=3, message=reason)
        await self.say(type_url=response.type_url, response_nonce=response.nonce, error_detail=detail, **fields)

    async def code(self) -> grpc.StatusCode:
        """How the stream ended; what was sent before is passed over."""
        with anyio.fail_after(WITHIN_S):
            with suppress(grpc.aio.AioRpcError):
                while await self._call.read() is not _grpc.aio.EOF:
                    pass
            return await self._call.code()

    async def details(self) -> str:
        """Why the stream ended."""
        with anyio.fail_after(WITHIN_S):
            return await self._call.details()

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        with anyio.fail_after(WITHIN_S):
            await self._call.write(data)

    async def done(self) -> None:
        """Say that nothing more is coming."""
        await self._call.done_writing()


def _serialize(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


@asynccontextmanager
async def xds_client(
    port: int,
    *,
    incremental: bool = False,
    path: str = "",
    token: str = "",
    credentials: Any = None,
    options: Mapping[str, Any] | None = None,
) -> AsyncGenerator[XdsClient]:
    """A stream to a server on this machine; `path` is that of another method than the aggregated ones."""
    address, settings = f"localhost:{port}", [*(options or {}).items()]
    made: Any = grpc.aio
    if credentials is None:
        channel = made.insecure_channel(f"127.0.0.1:{port}", options=settings)
    else:
        channel = made.secure_channel(address, credentials, options=settings)
    kind = "Delta" if incremental else ""
    method = path or f"{_ADS}{kind or 'Stream'}AggregatedResources"
    async with channel:
        call = channel.stream_stream(
            method,
            request_serializer=_serialize,
            response_deserializer=message_class(f"{_DISCOVERY}{kind}DiscoveryResponse").FromString,
        )(metadata=(("authorization", f"Bearer {token}"),) if token else None)
        try:
            yield XdsClient(call, incremental=incremental)
        finally:
            call.cancel()


def cluster(name: str, *, timeout_s: float = 1.0) -> Any:
    """A cluster whose endpoints come over the same stream."""
    made = message_class("envoy.config.cluster.v3.Cluster")(name=name, type=3)
    made.connect_timeout.FromMilliseconds(int(timeout_s * 1000))
    made.eds_cluster_config.eds_config.ads.SetInParent()
    made.eds_cluster_config.eds_config.resource_api_version = 2
    return made


def endpoints(name: str, *ports: int) -> Any:
    """Endpoints on this machine."""
    made = message_class("envoy.config.endpoint.v3.ClusterLoadAssignment")(cluster_name=name)
    locality = made.endpoints.add()
    locality.load_balancing_weight.value = 1
    locality.locality.zone = "here"
    for port in ports:
        address = locality.lb_endpoints.add().endpoint.address.socket_address
        address.address, address.port_value = "127.0.0.1", port
    return made
