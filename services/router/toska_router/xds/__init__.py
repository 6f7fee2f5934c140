"""An xDS v3 server: programs Envoy and gRPC's own clients, and knows nothing of the mesh.

    resources = {types.CLUSTER: {"orders": cluster}, types.ENDPOINTS: {"orders": endpoints}}   # protobuf messages
    server = XdsServer()
    server.set_resources(EVERYBODY, resources)
    async with server.listening("127.0.0.1", 18000):
        ...                                  # `set_resources` again whenever they are different
        server.list_clients()                # who runs what, and what they refused

It speaks the aggregated service and that of each type, state of the world and incremental. `stream` and what is below
it are the protocol, pure: given requests and resources they say responses. `server` gives them sockets.
"""

from toska_router.xds import types
from toska_router.xds.access import AccessRefused, AddressTaken, Admit, Caller, ServerTls
from toska_router.xds.exchange import Node, Refusal
from toska_router.xds.groups import EVERYBODY, NodeRule, by_cluster, find_group
from toska_router.xds.loads import ClusterLoad, EndpointLoad, LoadReports
from toska_router.xds.resources import Message, Resource, ResourceSet, build_resource_set
from toska_router.xds.server import XdsServer
from toska_router.xds.status import ClientStatus, Refused, Tally, TypeStatus

__all__ = [
    "EVERYBODY",
    "AccessRefused",
    "AddressTaken",
    "Admit",
    "Caller",
    "ClientStatus",
    "ClusterLoad",
    "EndpointLoad",
    "LoadReports",
    "Message",
    "Node",
    "NodeRule",
    "Refusal",
    "Refused",
    "Resource",
    "ResourceSet",
    "ServerTls",
    "Tally",
    "TypeStatus",
    "XdsServer",
    "build_resource_set",
    "by_cluster",
    "find_group",
    "types",
]
