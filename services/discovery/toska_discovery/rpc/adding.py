"""Puts discovery's service on a gRPC server."""

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from toska_common.security import ManagementPolicy

from toska_discovery.directory import Directory

if TYPE_CHECKING:
    import grpc.aio

SERVICE = "toska.discovery.v1.ServiceDiscovery"


def add_to(
    directory: Directory, policy: ManagementPolicy, registry: CollectorRegistry, server: "grpc.aio.Server"
) -> Any:
    """Add it, and return the descriptor of its file."""
    from toska_common.protos import discovery_v1_pb2, discovery_v1_pb2_grpc

    from toska_discovery.rpc.service import ServiceDiscovery

    services: Any = discovery_v1_pb2_grpc  # made by protoc, without types
    services.add_ServiceDiscoveryServicer_to_server(ServiceDiscovery(directory, policy, registry), server)
    return discovery_v1_pb2.DESCRIPTOR
