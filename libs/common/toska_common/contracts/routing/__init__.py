"""The words of routing: what operators write (a file, or the router's API) and what gateways are given.

Every name is part of the contract and may only be joined by others. What a gateway cannot do is not in here, so
asking for it is an error and never silently ignored.
"""

from toska_common.contracts.routing.access import IpRules, RequireHttps
from toska_common.contracts.routing.auth import Auth, Jwt, TokenPlace
from toska_common.contracts.routing.browsers import Cors, Hsts, SecurityHeaders
from toska_common.contracts.routing.caching import CacheKey, CacheMemory, ResponseCache
from toska_common.contracts.routing.clusters import (
    AffinityCookie,
    Breaker,
    Cluster,
    ConnectionLimits,
    Endpoint,
    Failover,
    HashKey,
    Outlier,
)
from toska_common.contracts.routing.compression import Compression, CompressionLevels
from toska_common.contracts.routing.experiments import Abort, Delay, Fault, Mirror
from toska_common.contracts.routing.filters import FilterUse
from toska_common.contracts.routing.health_check import HealthCheck
from toska_common.contracts.routing.matching import Conditions, Match, ValueMatch
from toska_common.contracts.routing.overlays import RouteOverlay
from toska_common.contracts.routing.policies import (
    BodyLimit,
    HeaderEdits,
    HeaderRules,
    NamedPolicy,
    Policies,
    RateLimit,
)
from toska_common.contracts.routing.resilience import Backoff, Fallback, Hedge, RetryPolicy
from toska_common.contracts.routing.respond import Respond
from toska_common.contracts.routing.rewriting import Redirect, Rewrite
from toska_common.contracts.routing.routes import Route
from toska_common.contracts.routing.seeing import AccessLog, AccessLogPolicy, Tracing
from toska_common.contracts.routing.server import ProxyProtocol, Server, ServerLimits
from toska_common.contracts.routing.snapshots import (
    ClusterEndpoints,
    ClusterEntry,
    EndpointsDelta,
    Inventory,
    PlacedRoute,
    PolicyEntry,
    RouteEntry,
    RouteTable,
    RoutingDocument,
    Snapshot,
    SnapshotDelta,
    SnapshotPoll,
    TableDelta,
)
from toska_common.contracts.routing.splits import Sticky, WeightedCluster
from toska_common.contracts.routing.versioning import ApiVersion, Versions

__all__ = [
    "Abort",
    "AccessLog",
    "AccessLogPolicy",
    "AffinityCookie",
    "ApiVersion",
    "Auth",
    "Backoff",
    "BodyLimit",
    "Breaker",
    "CacheKey",
    "CacheMemory",
    "Cluster",
    "ClusterEndpoints",
    "ClusterEntry",
    "Compression",
    "CompressionLevels",
    "Conditions",
    "ConnectionLimits",
    "Cors",
    "Delay",
    "Endpoint",
    "EndpointsDelta",
    "Failover",
    "Fallback",
    "Fault",
    "FilterUse",
    "HashKey",
    "HeaderEdits",
    "HeaderRules",
    "HealthCheck",
    "Hedge",
    "Hsts",
    "Inventory",
    "IpRules",
    "Jwt",
    "Match",
    "Mirror",
    "NamedPolicy",
    "Outlier",
    "PlacedRoute",
    "Policies",
    "PolicyEntry",
    "ProxyProtocol",
    "RateLimit",
    "Redirect",
    "RequireHttps",
    "Respond",
    "ResponseCache",
    "RetryPolicy",
    "Rewrite",
    "Route",
    "RouteEntry",
    "RouteOverlay",
    "RouteTable",
    "RoutingDocument",
    "SecurityHeaders",
    "Server",
    "ServerLimits",
    "Snapshot",
    "SnapshotDelta",
    "SnapshotPoll",
    "Sticky",
    "TableDelta",
    "TokenPlace",
    "Tracing",
    "ValueMatch",
    "Versions",
    "WeightedCluster",
]
