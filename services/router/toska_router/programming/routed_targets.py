"""Routes for gRPC's own xDS clients: each exact host of the routing is a target, `xds:///orders.internal`.

A client obeys what its calls can be told apart by (path and metadata), splits and timeouts; it goes straight to the
instances, so what else a route says is for gateways. Routes that it could not follow as they are meant are not told in
part: the host's last ones stay, and `problems` says why.
"""

from collections.abc import Container, Iterator, Mapping, Sequence

from toska_common.contracts.routing import Match, Route, RouteTable, ValueMatch, WeightedCluster
from toska_common.routing.problems import Finding

from toska_router.xds.resources import Message, Resource, encode_resource
from toska_router.xds.targets import HeaderTest, TargetRoute, build_routed_target

Key = tuple[str, str]
"""Type URL and name."""
Encoded = dict[Key, Resource]
_METHOD = "POST"
"""Of every call of gRPC."""


class Unfit(Exception):
    """A client of gRPC cannot follow this."""


class RoutedTargets:
    """Targets of the hosts of one table after another; what is the same is neither made nor encoded again.

    Attributes:
        problems: What of the routes of hosts cannot be told, by the route's name.
    """

    def __init__(self) -> None:
        self.problems: tuple[Finding, ...] = ()
        self._hosts: dict[str, tuple[tuple[Route, ...], Encoded, tuple[Finding, ...]]] = {}

    def update(self, table: RouteTable) -> None:
        """Take over a table's routes."""
        before, self._hosts = self._hosts, {}
        for host, routes in _by_host(table).items():
            known = before.get(host)
            if known is None or not _are(routes, known[0]):
                known = self._make(host, routes, {} if known is None else known[1])
            self._hosts[host] = known
        self.problems = tuple(finding for _, _, findings in self._hosts.values() for finding in findings)

    def resources(self, clusters: Container[str]) -> Iterator[Encoded]:
        """What clients are to have; a cluster of a host's name goes before the host."""
        yield from (encoded for host, (_, encoded, _) in self._hosts.items() if host not in clusters)

    def _make(
        self, host: str, routes: tuple[Route, ...], before: Encoded
    ) -> tuple[tuple[Route, ...], Encoded, tuple[Finding, ...]]:
        told: list[TargetRoute] = []
        findings: list[Finding] = []
        for route in routes:
            try:
                told += target_routes(route)
            except Unfit as reason:
                findings.append(Finding(("routes", route.name), f"gRPC's clients of {host}: {reason}"))
        if findings:
            return routes, before, tuple(findings)
        return routes, encode_target(build_routed_target(host, told), before), ()


def target_routes(route: Route) -> list[TargetRoute]:
    """A route as gRPC's clients follow it; none if no call can be meant.

    Raises:
        Unfit: They cannot.
    """
    match = route.match
    if match.methods and _METHOD not in match.methods:
        return []
    _require_followable(route)
    made: list[TargetRoute] = []
    for path in _paths(match):
        for weights, conditions in _parts(route.to):
            headers = tuple(_header(name, value) for name, value in (*match.headers.items(), *conditions))
            made.append(TargetRoute(weights, **path, headers=headers, timeout=route.policies.timeout))
    return made


def encode_target(messages: Mapping[str, Mapping[str, Message]], before: Mapping[Key, Resource]) -> Encoded:
    """Messages of a target, by type URL and name, as resources that are sent to those who ask by name."""
    return {
        (url, name): encode_resource(url, name, found, before.get((url, name)), on_demand=True)
        for url, named in messages.items()
        for name, found in named.items()
    }


def _by_host(table: RouteTable) -> dict[str, tuple[Route, ...]]:
    found: dict[str, list[Route]] = {}
    for route in table.routes:
        host = route.match.host
        if host is not None and not host.startswith("*"):
            found.setdefault(host, []).append(route)
    return {host: tuple(routes) for host, routes in found.items()}


def _are(routes: Sequence[Route], known: Sequence[Route]) -> bool:
    return len(routes) == len(known) and all(now is then for now, then in zip(routes, known, strict=True))


def _require_followable(route: Route) -> None:
    if not route.to:
        raise Unfit("they follow no redirect, and take no answer but a service's")
    if route.sticky is not None:
        raise Unfit("each call is drawn by itself, and sticky says otherwise")
    if route.strip_prefix or route.policies.rewrite is not None:
        raise Unfit("they call a method by its own path alone, which is not rewritten")
    if route.policies.versions is not None:
        raise Unfit("they know no versions")


def _paths(match: Match) -> list[dict[str, str]]:
    if match.cookies or match.query or match.client_ip:
        raise Unfit("they match by path and headers alone")
    if match.except_prefixes or match.path_template is not None:
        raise Unfit("they know no except_prefixes and no path_template: write path, path_prefix or path_regex")
    if match.path is not None:
        return [{"path": match.path}]
    if match.path_regex is not None:
        return [{"regex": match.path_regex}]
    prefix = (match.path_prefix or "/").rstrip("/")
    # By segment, which gRPC does not know: the segment itself, and what is below it.
    return [{"path": prefix}, {"prefix": f"{prefix}/"}] if prefix else [{"prefix": ""}]


def _parts(to: Sequence[WeightedCluster]) -> Iterator[tuple[dict[str, int], Sequence[tuple[str, ValueMatch]]]]:
    for part in to:
        if part.when is not None:
            if part.when.cookies or part.when.query or part.when.client_ip:
                raise Unfit("they match by path and headers alone, also in when")
            yield {part.cluster: 1}, [*part.when.headers.items()]
    yield {part.cluster: part.weight for part in to if part.when is None and part.weight}, ()


def _header(name: str, value: ValueMatch) -> HeaderTest:
    if value.invert:
        raise Unfit(f"a header that is not there fits no test of theirs, and {name} is inverted")
    return HeaderTest(name, value.exact, value.prefix, value.suffix, value.contains, value.regex, value.present)
