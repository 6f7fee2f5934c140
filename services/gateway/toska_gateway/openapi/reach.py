"""Under which path a caller of the gateway reaches an operation of a service, by the routes alone.

A browser on the docs page sends the gateway's own host name and no special headers, so routes that ask for a host,
header or query parameter do not count. Nor do those by expression: which of the paths of `/items/{id}` fit one, nobody
can tell.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.contracts.routing import Match, Route, RouteTable


@dataclass(frozen=True, slots=True)
class _Ranked:
    rank: int
    route: Route


class Reach:
    """The routes of one table, indexed for looking up paths of operations (`/items/{id}`) instead of requests."""

    def __init__(self, table: RouteTable) -> None:
        self._exact: dict[str, list[_Ranked]] = {}
        self._prefixes: dict[str, list[_Ranked]] = {}
        self._by_service: dict[str, list[_Ranked]] = {}
        for rank, route in enumerate(table.routes):
            if _is_plain(route.match):
                self._add(_Ranked(rank, route), table)

    def _add(self, ranked: _Ranked, table: RouteTable) -> None:
        match = ranked.route.match
        if match.path is not None:
            self._exact.setdefault(match.path, []).append(ranked)
        else:
            self._prefixes.setdefault((match.path_prefix or "/").rstrip("/"), []).append(ranked)
        service = _service_of(ranked.route, table)
        if service is not None:
            self._by_service.setdefault(service, []).append(ranked)

    def services(self) -> frozenset[str]:
        """The services, and clusters of the mesh itself, that some route leads to."""
        return frozenset(self._by_service)

    def reaches(self, service: str) -> bool:
        """Whether some route leads to it."""
        return service in self._by_service

    def find_path(self, service: str, method: str, path: str) -> str | None:
        """The path under which the gateway takes an operation, or `None` if no request reaches it."""
        for candidate in self._by_service.get(service, ()):
            external = _external(candidate.route, path)
            if external is not None and self._winner(method.upper(), external) == candidate.rank:
                return external
        return None

    def _winner(self, method: str, path: str) -> int | None:
        return min(
            (ranked.rank for ranked in self._candidates(path) if _takes(ranked.route, method, path)), default=None
        )

    def _candidates(self, path: str) -> Iterator[_Ranked]:
        yield from self._exact.get(path, ())
        at = path
        while at:
            yield from self._prefixes.get(at, ())
            at = at.rpartition("/")[0]
        yield from self._prefixes.get("", ())


def _is_plain(match: Match) -> bool:
    is_plain_path = match.path_regex is None and match.path_template is None
    return match.host is None and is_plain_path and not match.values and not match.client_ip


def _service_of(route: Route, table: RouteTable) -> str | None:
    """Who answers for a route: of a split, the part with the most weight, which documents the others.

    A fixed cluster has no service and thus no document, except for the mesh's own, which stand under their names.
    """
    if not route.to:
        return None
    name = max((part for part in route.to if part.when is None), key=lambda part: part.weight).cluster
    cluster = table.clusters.get(name)
    service = cluster.service if cluster is not None else None
    if service is None:
        return name if name.startswith(RESERVED_PREFIX) else None
    return None if service.startswith(RESERVED_PREFIX) else service


def _external(route: Route, path: str) -> str | None:
    """Under which path a client asks for what the upstream has under `path`, if that can be told."""
    prefix = (route.match.path_prefix or "/").rstrip("/")
    rewrite, versions = route.policies.rewrite, route.policies.versions
    if versions is not None and versions.strip_path and versions.default is None:
        return None  # each version has a path of its own
    if route.strip_prefix:
        return prefix + path
    if rewrite is None or (rewrite.prefix is None and rewrite.replacement is None):
        return path
    if rewrite.prefix is None or not _is_below(path, rewrite.prefix):
        return None
    return prefix + path[len(rewrite.prefix.rstrip("/")) :] or "/"


def _takes(route: Route, method: str, path: str) -> bool:
    match = route.match
    if match.methods and method not in match.methods:
        return False
    if match.path is not None:
        return path == match.path
    return _is_below(path, match.path_prefix or "/") and not any(
        _is_below(path, prefix) for prefix in match.except_prefixes
    )


def _is_below(path: str, prefix: str) -> bool:
    parent = prefix.rstrip("/")
    return path == parent or path.startswith(parent + "/")
