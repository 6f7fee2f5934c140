"""The words of routing: what operators write (a file, or the router's API) and what gateways are given.

Every name is part of the contract and may only be joined by others. What a gateway cannot do is not in here, so
asking for it is an error and never silently ignored.
"""

from toska_common.contracts.routing.clusters import (
    AffinityCookie,
    Breaker,
    Cluster,
    ConnectionLimits,
    Endpoint,
    HashKey,
    Outlier,
)
from toska_common.contracts.routing.policies import (
    BodyLimit,
    HeaderEdits,
    HeaderRules,
    Policies,
    RateLimit,
    RetryPolicy,
)
from toska_common.contracts.routing.routes import Match, Redirect, Respond, Route, WeightedCluster
from toska_common.contracts.routing.seeing import AccessLog, AccessLogPolicy, Tracing
from toska_common.contracts.routing.server import ProxyProtocol, Server, ServerLimits
from toska_common.contracts.routing.snapshots import (
    ClusterEndpoints,
    ClusterEntry,
    EndpointsDelta,
    RouteEntry,
    RouteTable,
    RoutingDocument,
    Snapshot,
    SnapshotDelta,
    SnapshotPoll,
)

__all__ = [
    "AccessLog",
    "AccessLogPolicy",
    "AffinityCookie",
    "BodyLimit",
    "Breaker",
    "Cluster",
    "ClusterEndpoints",
    "ClusterEntry",
    "ConnectionLimits",
    "Endpoint",
    "EndpointsDelta",
    "HashKey",
    "HeaderEdits",
    "HeaderRules",
    "Match",
    "Outlier",
    "Policies",
    "ProxyProtocol",
    "RateLimit",
    "Redirect",
    "Respond",
    "RetryPolicy",
    "Route",
    "RouteEntry",
    "RouteTable",
    "RoutingDocument",
    "Server",
    "ServerLimits",
    "Snapshot",
    "SnapshotDelta",
    "SnapshotPoll",
    "Tracing",
    "WeightedCluster",
]
