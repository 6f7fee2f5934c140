"""Resources as the API shows them, with where they come from and their `ETag`."""

from typing import Any

from starlette.responses import Response
from toska_common.contracts.revisions import Kind
from toska_common.contracts.routing import Cluster, Endpoint, Policies, Route
from toska_common.errors import NotFound
from toska_common.routing.table_index import index_of
from toska_common.routing.versions import resource_version
from toska_common.routing.written import written, written_version

from toska_router.handlers.bodies import entity_tag, to_json
from toska_router.parts import Parts
from toska_router.runs.overlays import list_overlays


def list_entries(parts: Parts, kind: Kind) -> list[dict[str, Any]]:
    """All that hold: routes in their order of precedence, the others by name."""
    if kind == "route":
        return [_route(parts, route) for route in parts.composer.table.routes]
    if kind == "cluster":
        return [_cluster(parts, name, cluster) for name, cluster in parts.composer.table.clusters.items()]
    document = parts.book.sources.document()
    return [_policy(parts, name, policy) for name, policy in sorted(document.policies.items())]


def get_entry(parts: Parts, kind: Kind, name: str) -> dict[str, Any]:
    """One of them.

    Raises:
        NotFound: There is none of that name.
    """
    if kind == "policy":
        policy = parts.book.sources.document().policies.get(name)
        entry = None if policy is None else _policy(parts, name, policy)
    elif kind == "cluster":
        cluster = parts.composer.table.clusters.get(name)
        entry = None if cluster is None else _cluster(parts, name, cluster)
    else:
        route = index_of(parts.composer.table).by_name.get(name)
        entry = None if route is None else _route(parts, route)
    if entry is None:
        raise NotFound(f"there is no {kind} {name}")
    return entry


def answer(content: Any, status: int = 200, *, version: str = "", revision: int | None = None) -> Response:
    """An answer in JSON."""
    headers = {"etag": entity_tag(version)} if version else {}
    if revision is not None:
        headers["x-toska-revision"] = str(revision)
    return Response(to_json(content), status, headers=headers, media_type="application/json")


def _route(parts: Parts, route: Route) -> dict[str, Any]:
    sources = parts.book.sources
    as_written = sources.find_written("route", route.name) or route
    entry: dict[str, Any] = {"route": written(as_written), "source": sources.source_of("route", route.name)}
    if overlays := list_overlays(route, parts.runs.runs, parts.composer.table):
        entry["overlays"] = [one.model_dump(mode="json", exclude_defaults=True) for one in overlays]
    if route.policies_from:
        entry["effective_policies"] = route.policies.model_dump(mode="json", exclude_defaults=True)
        return {**entry, "version": written_version(as_written)}
    return {**entry, "version": resource_version(route)}


def _cluster(parts: Parts, name: str, cluster: Cluster) -> dict[str, Any]:
    return {
        "name": name,
        "cluster": written(cluster),
        "source": parts.book.sources.source_of("cluster", name),
        "version": resource_version(cluster),
        "endpoints": [endpoint.model_dump(mode="json") for endpoint in _endpoints(parts, name)],
    }


def _policy(parts: Parts, name: str, policy: Policies) -> dict[str, Any]:
    sources = parts.book.sources
    return {
        "name": name,
        "policy": written(policy),
        "source": sources.source_of("policy", name),
        "version": written_version(policy),
        "used_by": [route.name for route in parts.composer.table.routes if name in route.policies_from],
    }


def _endpoints(parts: Parts, cluster: str) -> tuple[Endpoint, ...]:
    found = parts.publisher.pools.get(cluster)
    return found.endpoints if found is not None else ()
