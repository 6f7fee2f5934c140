"""What the connections of a worker share: routing, clusters, limits, counts, and a coarse clock.

`now` is monotonic and at most one step old, which is exact enough for deadlines and costs a request nothing. The
sweep visits every connection a few times a second and lets those whose deadline has passed act on it.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from toska_common.clock import now_utc
from toska_common.targets import TargetRules

from toska_gateway.worker.access_log import AccessLog
from toska_gateway.worker.allowances import Allowances
from toska_gateway.worker.client_connection import UNIX_PEER
from toska_gateway.worker.cluster import Cluster
from toska_gateway.worker.connector import Connector
from toska_gateway.worker.downstream import Downstream
from toska_gateway.worker.endpoint import Endpoint
from toska_gateway.worker.log_writer import LogWriter, place_of
from toska_gateway.worker.mesh_allowances import MeshAllowances
from toska_gateway.worker.outbox import Outbox
from toska_gateway.worker.redis_link import RedisLink
from toska_gateway.worker.route import CLOCK_STEP
from toska_gateway.worker.spans import Send, Tracer
from toska_gateway.worker.stats import WorkerStats
from toska_gateway.worker.table import RoutingTable
from toska_gateway.worker.telling import Tell, tell_nobody
from toska_gateway.worker.via import Via

if TYPE_CHECKING:
    from toska_gateway.worker.auth.verifier import Verifiers
    from toska_gateway.worker.cache.cache import ResponseCache
    from toska_gateway.worker.certificates import ServerContexts
    from toska_gateway.worker.filters.shelf import FilterShelf
    from toska_gateway.worker.opening import Opening

_SLICE: Final = 2000
"""Connections visited in one go, so that a sweep never holds the loop for a millisecond."""
_CLUSTER_SLICE: Final = 500
"""Clusters, likewise."""


class Limits:
    """The listener's limits (`server.limits` of the routing document), in bytes and seconds."""

    __slots__ = (
        "body_bytes", "body_timeout", "connections", "connections_per_client", "handshake_timeout", "header_bytes",
        "header_timeout", "headers", "idle_timeout", "target_bytes",
    )  # fmt: skip

    def __init__(self, limits: dict[str, Any]) -> None:
        self.header_bytes: int = limits["header_bytes"]
        self.headers: int = limits["headers"]
        self.target_bytes: int = limits["target_bytes"]
        self.body_bytes: int = limits["body_bytes"]
        self.header_timeout: float = limits["header_timeout"]
        self.body_timeout: float = limits["body_timeout"]
        self.idle_timeout: float = limits["idle_timeout"]
        self.handshake_timeout: float = limits["handshake_timeout"]
        self.connections: int = limits["connections"]
        self.connections_per_client: int = limits["connections_per_client"]


class Plane:
    """The shared part of a worker's data plane."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rules: TargetRules) -> None:
        self.loop = loop
        self.now = loop.time()
        self.wall = now_utc().timestamp()  # seconds since 1970, at most one step old, for times that others wrote
        self.outbox = Outbox(loop)
        self.stats = WorkerStats()
        self.table = RoutingTable()
        self.clusters: dict[str, Cluster] = {}
        self.limits = Limits(DEFAULT_LIMITS)
        self.connector = Connector(self, rules)
        self.downstreams: dict[Downstream | Opening, None] = {}
        self.per_client: dict[str, int] = {}
        self.draining = False
        self.via = Via()
        self.server_tls: ServerContexts | None = None
        self.ticket_secret = secrets.token_bytes(32)  # until the parent says what all workers seal tickets with
        self.proxy_peers: tuple[Any, ...] | None = None
        self.affinity_secret = b""
        self.shared_fd: int | None = None  # memory that all workers of the machine see
        self.cache_url = "memory://"  # of what all gateways of the mesh share; redis:// may hold a password
        self.tell: Tell = tell_nobody
        self.zone = ""  # where this gateway runs, for clusters that prefer what is near
        self.folder = ""  # where relative paths begin
        self.access_log: AccessLog | None = None
        self.filters_folder: str | None = None  # where operators' filters are; none are run if it is None
        self.filters: FilterShelf | None = None  # if a route has any
        self.ask_for_keys: Callable[[str], None] = _ask_nobody
        self.verifiers: Verifiers | None = None  # of tokens, if a route asks for any
        self.spread: Callable[[dict[str, Any]], None] = _nobody_else  # a control message for the other workers
        self.cache: ResponseCache | None = None  # made by the first route that has one
        self.cache_bytes = 0
        self.cache_wait_s = 0.0
        self.send_spans: Send = _send_nobody
        self.tracer: Tracer | None = None
        self._allowances: dict[str, Allowances] = {}
        self._mesh_allowances: MeshAllowances | None = None
        self._trusted_networks: tuple[Any, ...] = ()
        self._trusts_unix = False
        self._leaving: list[Endpoint] = []  # not in their clusters any more, and perhaps still in use
        self._visit: Iterator[Downstream | Opening] = iter(())
        self._round: Iterator[Cluster] = iter(())
        self._sweeper: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin sweeping."""
        self._sweeper = self.loop.call_later(CLOCK_STEP, self._sweep)

    def stop(self) -> None:
        """End sweeping; connections are the owner's to close."""
        if self._sweeper is not None:
            self._sweeper.cancel()

    def configure_server(self, server: dict[str, Any]) -> None:
        """Take over the listener's settings; connections that are open keep the reader they have."""
        self.limits = Limits(server["limits"])
        self.cache_bytes, self.cache_wait_s = server["cache"]["memory"], server["cache"]["shared_wait"]
        if self.cache is not None:
            self.cache.store.resize(self.cache_bytes)
        trusted = server["trusted_proxies"]
        self._trusts_unix = "unix:" in trusted
        self._trusted_networks = tuple(ip_network(network) for network in trusted if network != "unix:")
        self._log_to(server.get("access_log"))
        self._trace_by(server.get("tracing"))
        proxied = server["proxy_protocol"]
        self.proxy_peers = None if proxied is None else tuple(ip_network(one) for one in proxied["trusted_peers"])

    def take_ticket_secret(self, secret: bytes) -> None:
        """Seal TLS sessions with this from now on."""
        self.ticket_secret = secret
        if self.server_tls is not None:
            self.server_tls.take_ticket_secret(secret)

    def trusts(self, peer: str) -> bool:
        """Whether forwarding headers from this peer are believed."""
        if peer == UNIX_PEER:
            return self._trusts_unix
        return bool(self._trusted_networks) and _is_in(peer, self._trusted_networks)

    def speaks_for_others(self, peer: str) -> bool:
        """Whether this peer may say, with the PROXY protocol, for whom it connects."""
        return _is_in(peer, self.proxy_peers or ())

    def allowances(self, scope: str) -> Allowances:
        """The table of rate limits of a scope: this worker's own, or that of all workers of the machine."""
        found = self._allowances.get(scope)
        if found is None:
            found = self._allowances[scope] = Allowances(descriptor=self.shared_fd if scope == "machine" else None)
        return found

    def mesh_allowances(self) -> MeshAllowances:
        """The way to the rate limits of all gateways; `when_linked` connects it."""
        if self._mesh_allowances is None:
            self._mesh_allowances = MeshAllowances(self.loop, self.cache_url, self.tell)
        return self._mesh_allowances

    def when_linked(self, then: Callable[[], None]) -> None:
        """Connect to what routes need besides endpoints, and call `then` once that stands or has turned out not to."""
        links = self._links()
        left = len(links)
        if not left:
            then()

        def one_less() -> None:
            nonlocal left
            left -= 1
            if not left:
                then()

        for link in links:
            link.start(one_less)

    def _links(self) -> list[RedisLink]:
        shared = None if self.cache is None else self.cache.shared
        return [link for link in (self._mesh_allowances, shared) if link is not None]

    async def close_links(self) -> None:
        """Close what `when_linked` opened."""
        for link in self._links():
            await link.stop()

    def cluster(self, name: str) -> Cluster | None:
        """The cluster of that name."""
        return self.clusters.get(name)

    def connection_freed(self, cluster: Cluster) -> None:
        """A connection of `cluster` is gone without serving a waiting request: there is room to open one for it."""
        while cluster.pending and cluster.connections < cluster.max_connections:
            exchange = cluster.pending.popleft()
            if exchange.waiting:
                exchange.connect()
                return

    def note(self, endpoint: Endpoint, status: int) -> None:
        """Tell an endpoint's cluster what came of an attempt; a status of 0 is a reset, a timeout, or no response."""
        cluster = endpoint.cluster
        if cluster.outliers.by_answers and cluster.answered(endpoint, status, self.now):
            self.stats.ejections += 1

    def judge(self, name: str, unhealthy: list[str]) -> None:
        """Leave those endpoints of a cluster out that fail its health check."""
        cluster = self.clusters.get(name)
        if cluster is not None:
            cluster.judge(frozenset(unhealthy), self.now)

    def close_idle(self, endpoints: list[Endpoint]) -> None:
        """Close the kept connections of endpoints that left; those in use close when they are done."""
        self._leaving += endpoints
        for endpoint in endpoints:
            while endpoint.idle:
                endpoint.idle.pop().close()

    def forget_endpoints(self) -> None:
        """Let go of what was counted of endpoints that left, once nothing more will be; after it has been told."""
        still = [endpoint for endpoint in self._leaving if endpoint.in_flight or endpoint.connecting]
        for endpoint in self._leaving:
            name, key = endpoint.cluster.name, endpoint.key
            cluster = self.clusters.get(name)
            if (cluster is None or key not in cluster.endpoints) and endpoint not in still:
                self.stats.endpoints.pop((name, key), None)
        self._leaving = still

    def state(self) -> dict[str, Any]:
        """How things stand now, in the words of `toska_gateway.gauges`; of clusters and endpoints, those in use."""
        return {
            "connections": len(self.downstreams),
            "cache": (0, 0) if self.cache is None else self.cache.state(),
            "clusters": {name: one.state(self.now) for name, one in self.clusters.items() if not one.is_idle},
        }

    def _sweep(self) -> None:
        self._sweeper = self.loop.call_later(CLOCK_STEP, self._sweep)
        self.now = self.loop.time()
        self.wall = now_utc().timestamp()
        if self.access_log is not None:
            self._flush_log(self.access_log)
        self.flush_spans()
        self._round = iter(list(self.clusters.values()))
        self._sweep_clusters()
        self._visit = iter(list(self.downstreams))
        self._sweep_slice()

    def _log_to(self, settings: dict[str, Any] | None) -> None:
        before = self.access_log
        if settings is not None:
            settings = {**settings, "path": place_of(settings["path"], self.folder)}
        if before is not None and before.settings == settings:
            return
        self.access_log = None if settings is None else AccessLog(settings, LogWriter(settings["path"]))
        if before is not None:
            self._flush_log(before)
            before.close(0.0)

    def _flush_log(self, log: AccessLog) -> None:
        self.stats.access_log_dropped += log.flush()
        trouble = log.trouble()
        if trouble is not None:
            level, event = ("error", "access_log_unwritable") if trouble else ("info", "access_log_writable")
            self.tell(level, event, {"path": log.settings["path"], "reason": trouble})

    def _trace_by(self, settings: dict[str, Any] | None) -> None:
        if self.tracer is None or self.tracer.settings != settings:
            self.flush_spans()
            self.tracer = None if settings is None else Tracer(settings, self.send_spans)

    def flush_spans(self) -> None:
        """Hand over the spans of what has ended."""
        if self.tracer is not None:
            self.stats.traces_dropped += self.tracer.flush()

    def close_log(self, patience_s: float) -> None:
        """Write what the access log still holds, for at most so long; before the process ends."""
        if self.access_log is not None:
            self.access_log.close(patience_s)
            self.stats.access_log_dropped += self.access_log.flush()

    def _sweep_slice(self) -> None:
        now = self.now
        visited = 0
        for downstream in islice(self._visit, _SLICE):
            visited += 1
            if downstream.deadline <= now:
                downstream.on_deadline()
        if visited == _SLICE:
            self.loop.call_soon(self._sweep_slice)

    def _sweep_clusters(self) -> None:
        now = self.now
        visited = 0
        for cluster in islice(self._round, _CLUSTER_SLICE):
            visited += 1
            cluster.tick(now)
            if not cluster.connections:
                continue
            oldest = now - cluster.keep_alive
            for endpoint in cluster.endpoints.values():
                # The longest idle stand first: taking from the end and putting back there keeps them in order.
                while endpoint.idle and endpoint.idle[0].idle_since < oldest:
                    endpoint.idle.pop(0).close()
        if visited == _CLUSTER_SLICE:
            self.loop.call_soon(self._sweep_clusters)


def _nobody_else(message: dict[str, Any]) -> None:
    """Until there is a parent who knows of others."""


def _send_nobody(_: list[dict[str, Any]]) -> bool:
    """Until there is a parent to send to."""
    return False


def _ask_nobody(source: str) -> None:
    """Until there is a parent to ask."""


def _is_in(peer: str, networks: tuple[Any, ...]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)


DEFAULT_LIMITS: Final[dict[str, Any]] = {
    "header_bytes": 65536,
    "headers": 100,
    "target_bytes": 8192,
    "body_bytes": 0,
    "header_timeout": 10.0,
    "body_timeout": 30.0,
    "idle_timeout": 75.0,
    "handshake_timeout": 10.0,
    "connections": 10_000,
    "connections_per_client": 1_000,
}
"""In force until the first table arrives, which is before a worker accepts."""
