"""Taking in new routing: built beside what is in force, then swapped in one step, or dropped whole.

Only what has changed is compiled; routes that are as they were stand in the new table as the same objects. All of it
comes in messages that are small enough to be taken between two requests.
"""

from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.cluster import Cluster
from toska_gateway.worker.patching import TooCrowded
from toska_gateway.worker.rebuilding import Rebuilding
from toska_gateway.worker.route import Route
from toska_gateway.worker.table import RoutingTable

if TYPE_CHECKING:
    from toska_gateway.worker.certificates import ClientContext, ServerContexts
    from toska_gateway.worker.plane import Plane

_BUILD_SLICE: Final = 400
"""Steps of putting a table together in one go; each route takes two."""
_SLICE_S: Final = 0.0005
"""How long clusters are made in one go."""
_FAULTS: Final = (KeyError, ValueError, TypeError, AttributeError)


class Staging:
    """What has arrived since the last commit.

    Attributes:
        crowded: Whether this change, or the last one that was refused, cannot be put on top of the table in force.
    """

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self.crowded = False
        self._reset()

    def _reset(self) -> None:
        self._table: Rebuilding | None = None
        self._server: dict[str, Any] = {}
        self._clusters: dict[str, dict[str, Any]] = {}
        self._new: list[str] | None = None  # names of clusters that are still to be made
        self._made: dict[str, Cluster] = {}
        self._removed_clusters: list[str] = []
        self._endpoints: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {}
        self._tls: dict[str, Any] | None = None
        self._server_tls: ServerContexts | None = None
        self._client_tls: dict[str, ClientContext] = {}
        self._problems: list[str] = []

    def take(self, message: dict[str, Any]) -> None:
        """Take one of the messages that carry a snapshot."""
        op = message["op"]
        if op == "endpoints":
            self.endpoints(message)
        elif op == "routes":
            self.routes(message["routes"])
        elif op == "places":
            self.places(message["places"])
        elif op == "clusters":
            self._clusters |= message["clusters"]
        elif op == "tls":
            self.tls(message)
        elif op == "keys":
            self.keys(message)
        else:
            self.table(message)

    def table(self, message: dict[str, Any]) -> None:
        """Begin a new table: all anew, or on top of the one in force."""
        self.crowded = False
        before = RoutingTable() if message["anew"] else self._plane.table
        self._table = Rebuilding(before, message["removed_routes"])
        self._server = message["server"]
        self._clusters = {}
        self._removed_clusters = message["removed_clusters"]

    def routes(self, routes: list[dict[str, Any]]) -> None:
        """Compile a slice of routes."""
        for route in routes:
            try:
                if self._table is None:
                    raise ValueError("routes came without a table")
                self._table.put(Route(0, route, self._plane))
            except _FAULTS as error:
                self._problems.append(f"route {route.get('name', '?')}: {type(error).__name__}: {error}")

    def places(self, places: list[tuple[str, str | None]]) -> None:
        """Take where routes stand that are new or have moved, in order of precedence."""
        if self._table is not None:
            self._table.place(places)

    def prepare(self) -> bool:
        """Do a slice of what can be done before the commit, which serves nobody yet; true if there is more."""
        if self._problems or self.crowded:
            return False
        return self._build() or self._make_clusters()

    def _build(self) -> bool:
        """Put a slice of the table together."""
        if self._table is None:
            return False
        try:
            return self._table.build(_BUILD_SLICE)
        except (TooCrowded, KeyError):
            self.crowded = True
            return False

    def _make_clusters(self) -> bool:
        """Make some of the clusters that are new: 10,000 take longer than a request should wait for the commit."""
        plane = self._plane
        if self._new is None:
            self._new = [name for name in self._clusters if name not in plane.clusters]
        until = plane.loop.time() + _SLICE_S
        while self._new:
            name = self._new.pop()
            cluster = self._made[name] = Cluster(name, plane.stats, plane.tell, plane.loop.call_soon)
            version, endpoints = self._endpoints.pop(name, ("", {}))
            cluster.tls = self._client_tls.get(name)
            cluster.configure(self._clusters.pop(name), plane.affinity_secret, plane.now, plane.zone)
            cluster.update(list(endpoints.values()), version, plane.now)
            if plane.loop.time() > until:
                break
        return bool(self._new)

    def tls(self, message: dict[str, Any]) -> None:
        """Build the contexts of listeners and clusters; a cluster whose identity has not changed keeps its own."""
        # Here: 20 ms to import, which only those workers pay that speak TLS.
        from toska_gateway.worker.certificates import ClientContext, ServerContexts, UnusableCertificate

        self._tls = message
        try:
            server = message["server"]
            self._server_tls = None if server is None else ServerContexts(server, self._plane.ticket_secret)
            for name, material in message["clusters"].items():
                cluster = self._plane.clusters.get(name)
                known = cluster.tls if cluster is not None else None
                if known is None or known.identity != material["identity"]:
                    known = ClientContext(material)
                self._client_tls[name] = known
        except (UnusableCertificate, OSError, ValueError) as error:
            self._problems.append(f"tls: {error}")

    def keys(self, message: dict[str, Any]) -> None:
        """Take the keys of one source of tokens: for routes that have just been compiled, or for those in force."""
        if self._plane.verifiers is not None:
            try:
                self._plane.verifiers.rings.take(message)
            except ValueError as error:
                self._problems.append(f"keys: {error}")

    def endpoints(self, message: dict[str, Any]) -> None:
        """Change one cluster's endpoints: upserts and removals on top of what it has, or of nothing on `reset`."""
        name = message["cluster"]
        if name in self._endpoints:
            known = self._endpoints[name][1]
        else:
            cluster = None if message["reset"] else self._plane.clusters.get(name)
            known = {} if cluster is None else {key: endpoint.item for key, endpoint in cluster.endpoints.items()}
        for key in message["remove"]:
            known.pop(key, None)
        for item in message["upsert"]:
            known[item["key"]] = item
        self._endpoints[name] = (message["version"], known)

    def commit(self) -> list[str]:
        """Put everything staged in force, or nothing: then the problems say why."""
        while self.prepare():
            pass  # as a rule the caller has done this before, and served others meanwhile
        problems = self._problems
        if self.crowded:
            problems.append("the routes have to be placed anew")
        elif not problems:
            self._swap(None if self._table is None else self._table.table)
        self._reset()
        return problems

    def _swap(self, table: RoutingTable | None) -> None:
        plane = self._plane
        if table is not None:
            clusters = dict(plane.clusters)
            for name in self._removed_clusters:
                cluster = clusters.pop(name, None)
                if cluster is not None:
                    plane.close_idle(cluster.update([], ""))
            clusters |= self._made
            for name, settings in self._clusters.items():
                clusters[name].configure(settings, plane.affinity_secret, plane.now, plane.zone)
            plane.clusters = clusters
            plane.configure_server(self._server)
            plane.table = table
        if self._tls is not None:
            plane.server_tls = self._server_tls
            for name, cluster in plane.clusters.items():
                tls = self._client_tls.get(name)
                if cluster.tls is not tls:
                    plane.close_idle(cluster.speak(tls, plane.now))
        for name, (version, endpoints) in self._endpoints.items():
            cluster = plane.clusters.get(name)
            if cluster is not None:
                plane.close_idle(cluster.update(list(endpoints.values()), version, plane.now))
