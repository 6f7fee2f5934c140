"""Puts the event bus on a gRPC server."""

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from toska_common.security import ManagementPolicy

from toska_events.parts import Parts

if TYPE_CHECKING:
    import grpc.aio

SERVICE = "toska.events.v1.EventBus"


def add_to(parts: Parts, policy: ManagementPolicy, registry: CollectorRegistry, server: "grpc.aio.Server") -> Any:
    """Add it, and return the descriptor of its file."""
    from toska_common.protos import events_v1_pb2, events_v1_pb2_grpc

    from toska_events.rpc.service import EventBus

    services: Any = events_v1_pb2_grpc  # made by protoc, without types
    services.add_EventBusServicer_to_server(EventBus(parts, policy, registry), server)
    return events_v1_pb2.DESCRIPTOR
