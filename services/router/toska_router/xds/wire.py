"""Requests and responses on the wire.

Requests are read by protobuf. Responses are put together here from what is encoded already: their four or five fields
are strings and nested messages, and the state of the world for a hundred clients is encoded once, not a hundred times.

Sources: `envoy/service/discovery/v3/discovery.proto`; protobuf's "Encoding", §Length-Delimited Records.
"""

from collections.abc import Iterable
from typing import Any

from toska_common.envoy_api import message_class

from toska_router.xds.exchange import Node, Request, Response
from toska_router.xds.resources import Resource

IDENTIFIER = "toska-router"
"""What responses say who answers (`ControlPlane.identifier`)."""

_STATE = "state of the world"
_REQUEST = "envoy.service.discovery.v3.DiscoveryRequest"
_DELTA_REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"


def read_state_request(data: bytes) -> Request:
    """A `DiscoveryRequest`; `google.protobuf.message.DecodeError` if it is none."""
    message = message_class(_REQUEST).FromString(data)
    return Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=_error_of(message),
        version=message.version_info,
        names=tuple(message.resource_names),
        node=node_of(message),
    )


def read_delta_request(data: bytes) -> Request:
    """A `DeltaDiscoveryRequest`; `google.protobuf.message.DecodeError` if it is none."""
    message = message_class(_DELTA_REQUEST).FromString(data)
    located = (locator.name for locator in message.resource_locators_subscribe)
    unlocated = (locator.name for locator in message.resource_locators_unsubscribe)
    return Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=_error_of(message),
        subscribe=(*message.resource_names_subscribe, *located),
        unsubscribe=(*message.resource_names_unsubscribe, *unlocated),
        known=dict(message.initial_resource_versions),
        node=node_of(message),
    )


def write_state_response(response: Response) -> bytes:
    """A `DiscoveryResponse`."""
    type_url = response.type_url.encode()
    body = None if response.whole is None else response.whole.cache.get(_STATE)
    if body is None:
        body = b"".join(_field(2, _any(type_url, resource)) for resource in response.resources)
        if response.whole is not None:
            response.whole.cache[_STATE] = body
    return b"".join(
        (
            _field(1, response.version.encode()),
            body,
            _field(4, type_url),
            _field(5, response.nonce.encode()),
            _field(6, _field(1, IDENTIFIER.encode())),
        )
    )


def write_delta_response(response: Response) -> bytes:
    """A `DeltaDiscoveryResponse`."""
    type_url = response.type_url.encode()
    return b"".join(
        (
            _field(1, response.version.encode()),
            *(_field(2, _resource(type_url, resource)) for resource in response.resources),
            _field(4, type_url),
            _field(5, response.nonce.encode()),
            *_strings(6, response.removed),
            _field(7, _field(1, IDENTIFIER.encode())),
        )
    )


def _resource(type_url: bytes, resource: Resource) -> bytes:
    return b"".join(
        (
            _field(1, resource.version.encode()),
            _field(2, _any(type_url, resource)),
            _field(3, resource.name.encode()),
        )
    )


def _any(type_url: bytes, resource: Resource) -> bytes:
    return _field(1, type_url) + _field(2, resource.value)


def _strings(number: int, values: Iterable[str]) -> Iterable[bytes]:
    return (_field(number, value.encode()) for value in values)


def _field(number: int, value: bytes) -> bytes:
    length = len(value)
    head = bytearray((number << 3 | 2,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + value


def _error_of(message: Any) -> str | None:
    return (message.error_detail.message or "no reason given") if message.HasField("error_detail") else None


def node_of(message: Any) -> Node | None:
    """Who a message is of; `None` if it does not say."""
    if not message.HasField("node"):
        return None
    from google.protobuf.json_format import MessageToDict

    node = message.node
    build = node.user_agent_build_version.version
    version = node.user_agent_version or f"{build.major_number}.{build.minor_number}.{build.patch}"
    return Node(
        id=node.id,
        cluster=node.cluster,
        zone=node.locality.zone,
        user_agent=f"{node.user_agent_name}/{version}" if node.user_agent_name else "",
        metadata=MessageToDict(node.metadata),
    )
