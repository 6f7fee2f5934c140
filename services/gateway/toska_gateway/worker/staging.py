"""Taking in new routing: built beside what is in force, then swapped in one step, or dropped whole."""

from typing import TYPE_CHECKING, Any

from toska_gateway.worker.cluster import Cluster
from toska_gateway.worker.table import RoutingTable

if TYPE_CHECKING:
    from toska_gateway.worker.certificates import ClientContext, ServerContexts
    from toska_gateway.worker.plane import Plane


class Staging:
    """What has arrived since the last commit."""

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self._reset()

    def _reset(self) -> None:
        self._table: RoutingTable | None = None
        self._server: dict[str, Any] = {}
        self._clusters: dict[str, dict[str, Any]] = {}
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
        elif op == "tls":
            self.tls(message)
        elif op == "keys":
            self.keys(message)
        else:
            self.table(message["server"], message["clusters"])

    def table(self, server: dict[str, Any], clusters: dict[str, dict[str, Any]]) -> None:
        """Begin a new table."""
        self._table = RoutingTable()
        self._server = server
        self._clusters = clusters

    def routes(self, routes: list[dict[str, Any]]) -> None:
        """Compile a slice of routes, in order of precedence."""
        for route in routes:
            try:
                if self._table is None:
                    raise ValueError("routes came without a table")
                self._table.add(route, self._plane)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                self._problems.append(f"route {route.get('name', '?')}: {type(error).__name__}: {error}")

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
        problems = self._problems
        if not problems:
            self._swap()
        self._reset()
        return problems

    def _swap(self) -> None:
        plane = self._plane
        if self._table is not None:
            clusters = {
                name: plane.clusters.get(name) or Cluster(name, plane.stats, plane.tell, plane.loop.call_soon)
                for name in self._clusters
            }
            for name, cluster in clusters.items():
                cluster.configure(self._clusters[name], plane.affinity_secret, plane.now, plane.zone)
            for name, cluster in plane.clusters.items():
                if name not in clusters:
                    plane.close_idle(cluster.update([], ""))
            plane.clusters = clusters
            plane.configure_server(self._server)
            plane.table = self._table
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
