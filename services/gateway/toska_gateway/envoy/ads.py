"""Tells Envoy what to do: an aggregated discovery service (ADS, state of the world) for this gateway's own Envoys.

On a Unix socket that only this gateway's user reaches. Watched files would need no gRPC, but Envoy takes an inotify
instance for each file that it watches, of which a user has 128: with more clusters than that it aborts.

Envoy subscribes by type and name, and answers each response with its nonce: taken, or refused and why.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
from anyio import to_thread
from toska_common.envoy import RouteEncoder
from toska_common.envoy.encoding import NotOfTheApi, encode
from toska_common.envoy.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from toska_common.envoy_api import message_class

_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
_WILDCARD: Final = frozenset({CLUSTER, LISTENER})
"""Types of which Envoy wants all there are."""
_UNBOUNDED: Final = -1
"""Ten thousand routes for twenty hosts are 60 MB, and Envoy takes what it is sent."""

Json = Mapping[str, Any]


class Refused(Exception):
    """Envoy did not take a resource, and says why."""


@dataclass
class _Sent:
    """What a stream has been sent of one type, and what it says of it."""

    names: frozenset[str] = frozenset()
    known: set[str] = field(default_factory=set[str])
    nonce: int = 0
    taken: int = 0
    refusals: dict[int, str] = field(default_factory=dict[int, str])


class _Stream:
    """One Envoy's stream."""

    def __init__(self, server: "AdsServer") -> None:
        self._server = server
        self._serial = 0
        self.node = ""
        self.sent: dict[str, _Sent] = {}
        self.changed = anyio.Event()
        self.outbox: list[Any] = []
        self.renewed: set[str] = set()  # clusters that Envoy has not yet taken in the form that they were sent in

    def take(self, request: Any) -> None:
        """A subscription, or what became of a response."""
        if not self.node:
            self.node = request.node.id
        kind = request.type_url
        sent = self.sent.setdefault(kind, _Sent())
        repeated = False
        if request.response_nonce:
            nonce = int(request.response_nonce)
            repeated = nonce <= sent.taken
            if kind == CLUSTER and nonce == sent.nonce:
                self.renewed.clear()
            if request.HasField("error_detail"):
                sent.refusals[nonce] = request.error_detail.message
            sent.taken = max(sent.taken, nonce)
        before, sent.names = sent.names, frozenset(request.resource_names)
        # What is no longer subscribed to is sent anew when it is again: Envoy has forgotten it.
        sent.known &= sent.names
        if kind in _WILDCARD:
            if not sent.nonce:
                self.send(kind)
            self._tell()
            return
        missing = sent.names - sent.known
        if repeated:
            # No answer: clusters that have changed ask for what they already had, perhaps together with new ones, and
            # Envoy takes nothing further of clusters before that has come.
            renewed = sent.names & self.renewed if kind == ENDPOINTS else set[str]()
            missing |= renewed or (sent.names if sent.names == before else set[str]())
        if missing:
            self.send(kind, missing)
        self._tell()

    def send(self, kind: str, names: Iterable[str] | None = None) -> int:
        """Send resources of a type (all, if none are named) that it wants; returns the nonce, 0 if nothing was sent."""
        sent = self.sent.get(kind)
        if sent is None:
            return 0
        wanted = self._server.names(kind) if kind in _WILDCARD else sent.names & frozenset(names or sent.names)
        here = [resource for name in sorted(wanted) if (resource := self._server.find(kind, name)) is not None]
        if not here and kind not in _WILDCARD:
            return 0
        self._serial += 1
        sent.nonce = self._serial
        sent.known = set(wanted) if kind in _WILDCARD else sent.known | set(wanted)
        response: Any = message_class("envoy.service.discovery.v3.DiscoveryResponse")(
            version_info=str(self._serial), type_url=kind, nonce=str(self._serial)
        )
        response.resources.extend(here)
        self.outbox.append(response)
        self._tell()
        return self._serial

    def forget(self, kind: str, names: Iterable[str]) -> None:
        """What is gone has to be sent again when it is wanted again."""
        sent = self.sent.get(kind)
        if sent is not None:
            sent.known.difference_update(names)

    def _tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class AdsServer:
    """Serves one set of resources to this gateway's Envoys."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._resources: dict[str, dict[str, Any]] = {}
        self._streams: list[_Stream] = []
        self._routes = RouteEncoder()
        self._server: Any = None

    async def open(self) -> None:
        """Listen."""
        import grpc  # here: only this engine needs it

        library: Any = grpc
        request_class = message_class("envoy.service.discovery.v3.DiscoveryRequest")
        method = library.stream_stream_rpc_method_handler(
            self._serve, request_deserializer=request_class.FromString, response_serializer=_serialized
        )
        service, _, name = _METHOD[1:].partition("/")
        self._server = library.aio.server(options=[("grpc.max_send_message_length", _UNBOUNDED)])
        self._server.add_generic_rpc_handlers((library.method_handlers_generic_handler(service, {name: method}),))
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._server.start()
        self._socket.chmod(0o600)

    async def aclose(self) -> None:
        """End all streams."""
        if self._server is not None:
            await self._server.stop(0)

    def names(self, kind: str) -> Sequence[str]:
        """Of all resources of a type."""
        return list(self._resources.get(kind, ()))

    def find(self, kind: str, name: str) -> Any:
        """A resource as an `Any`."""
        return self._resources.get(kind, {}).get(name)

    async def put(self, kind: str, resources: Mapping[str, Json], *, whole: bool = True) -> None:
        """Have these resources of a type from now on, `whole` instead of all others; nothing is sent yet.

        Raises:
            Refused: One is not of the form of Envoy's API; nothing has changed.
        """
        try:
            packed = await to_thread.run_sync(self._packed, kind, resources)
        except NotOfTheApi as error:
            raise Refused(str(error)) from error
        known = self._resources.setdefault(kind, {})
        if kind == CLUSTER:
            changed = [name for name, one in packed.items() if known.get(name) != one]
            for stream in self._streams:
                stream.renewed.update(changed)
        gone = set(known) - set(packed) if whole else set[str]()
        for name in gone:
            del known[name]
        known.update(packed)
        for stream in self._streams:
            stream.forget(kind, gone)

    def remove(self, kind: str, names: Iterable[str]) -> None:
        """Have these no longer."""
        gone = list(names)
        for name in gone:
            self._resources.get(kind, {}).pop(name, None)
        for stream in self._streams:
            stream.forget(kind, gone)

    def send(self, kind: str, names: Iterable[str] | None = None) -> dict[str, int]:
        """Send what there is now to every stream; returns the nonces by node."""
        wanted = None if names is None else list(names)
        return {stream.node: nonce for stream in self._streams if (nonce := stream.send(kind, wanted))}

    async def taken(self, kind: str, node: str, nonce: int) -> None:
        """Wait until an Envoy has taken a response.

        Raises:
            Refused: It did not, and says why; or its stream has ended.
        """
        while True:
            stream = self._find_stream(node)
            if stream is None:
                raise Refused("the stream has ended")
            changed, sent = stream.changed, stream.sent[kind]
            if nonce in sent.refusals:
                raise Refused(sent.refusals[nonce])
            if sent.taken >= nonce:
                return
            await changed.wait()

    def refusals(self, node: str) -> list[str]:
        """Everything that an Envoy has refused of what it was sent last."""
        stream = self._find_stream(node)
        return [] if stream is None else [
            sent.refusals[sent.nonce] for sent in stream.sent.values() if sent.nonce in sent.refusals
        ]  # fmt: skip

    def _packed(self, kind: str, resources: Mapping[str, Json]) -> dict[str, Any]:
        packed: dict[str, Any] = {}
        for name, resource in resources.items():
            any_message: Any = message_class("google.protobuf.Any")()
            any_message.type_url = kind
            any_message.value = self._routes.encode(resource) if kind == ROUTES else encode(kind, resource)
            packed[name] = any_message
        return packed

    def _find_stream(self, node: str) -> _Stream | None:
        return next((stream for stream in reversed(self._streams) if stream.node == node), None)

    async def _serve(self, _: Any, context: Any) -> None:
        stream = _Stream(self)
        self._streams.append(stream)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read, stream, context, group.cancel_scope)
                while True:
                    changed = stream.changed
                    while stream.outbox:
                        await context.write(stream.outbox.pop(0))
                    await changed.wait()
        finally:
            self._streams.remove(stream)
            stream.changed.set()

    async def _read(self, stream: _Stream, context: Any, scope: anyio.CancelScope) -> None:
        import grpc

        library: Any = grpc
        while (request := await context.read()) is not library.aio.EOF:
            stream.take(request)
        scope.cancel()


def _serialized(response: Any) -> bytes:
    return response.SerializeToString()
