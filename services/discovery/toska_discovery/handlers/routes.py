"""Instances and services: register, find, list, describe, deregister."""

from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar, cast
from urllib.parse import urlencode

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from starlette.responses import PlainTextResponse
from toska_common.contracts.discovery import (
    Health,
    Heartbeat,
    Instance,
    Metadata,
    Registration,
    Report,
    ServiceGraph,
    ServiceSummary,
    ServiceVersions,
)
from toska_common.credentials import Access

from toska_discovery.access import PREFIX
from toska_discovery.directory import Directory
from toska_discovery.graph import draw_dot, draw_mermaid
from toska_discovery.handlers.etags import etag_of, expected_versions
from toska_discovery.handlers.events import feed_stream
from toska_discovery.handlers.query import AskedCriteria, AskedPage, InstanceSort, ServiceSort
from toska_discovery.metadata import merge, read_patch, read_replacement
from toska_discovery.paging import Page, PageRequest
from toska_discovery.selection import Caller, Order


def _directory(request: Request) -> Directory:
    return cast("Directory", request.app.state.directory)


def _access(request: Request) -> Access | None:
    return request.state.access


TheDirectory = Annotated[Directory, Depends(_directory)]
Caller_ = Annotated[Access | None, Depends(_access)]
ServiceQuery = Annotated[str, Query(min_length=1, max_length=255, description="The service")]
IfMatch = Annotated[str | None, Header(description="The version that is to be changed, as its ETag; else 412")]

T = TypeVar("T")

router = APIRouter(prefix=PREFIX, tags=["services"])


@router.post("", status_code=201)
async def register(
    registration: Registration, response: Response, directory: TheDirectory, access: Caller_
) -> Instance:
    """List an instance, in place of whoever has its id, or its address and port; needs the join token.

    It stays listed for as long as it is renewed by `POST …/{id}/heartbeat` once every `ttl_seconds`.
    """
    instance = await directory.register(registration, access)
    response.headers["location"] = f"{PREFIX}/{instance.id}"
    return instance


@router.get("")
async def list_services(
    request: Request,
    response: Response,
    directory: TheDirectory,
    criteria: AskedCriteria,
    sort: ServiceSort,
    page: AskedPage,
) -> list[ServiceSummary]:
    """Services with how many of their instances are in which state; filters choose the instances that count.

    `X-Total-Count` is the length of the whole list, `Link: …; rel="next"` the address of the next page.
    """
    found = await directory.list_services(criteria, sort, page)
    return _paged(found, page, request, response)


@router.get("/instances")
async def list_instances(
    request: Request,
    response: Response,
    directory: TheDirectory,
    criteria: AskedCriteria,
    sort: InstanceSort,
    page: AskedPage,
    name: Annotated[str, Query(max_length=255, description="The service; of all if left out")] = "",
) -> list[Instance]:
    """Instances one by one; `X-Total-Count` and `Link` as for services."""
    found = await directory.list_instances(name, criteria, sort, page)
    return _paged(found, page, request, response)


@router.get("/discover")
async def discover(
    directory: TheDirectory,
    name: ServiceQuery,
    criteria: AskedCriteria,
    all_: Annotated[bool, Query(alias="all", description="Also those that are critical")] = False,
    near_zone: Annotated[str, Query(max_length=64, description="The caller's zone: near ones first")] = "",
    near_region: Annotated[str, Query(max_length=64, description="The caller's region")] = "",
    order: Annotated[Order, Query(description="`best`: near, preferred, with least to do; or `id`")] = "best",
    limit: Annotated[int, Query(ge=0, le=1000, description="At most so many; 0 for all")] = 0,
) -> list[Instance]:
    """The instances of one service that can be called, the best first; none if there is no such service.

    Passing ones come before warning ones, then those near the caller (one whose score is below 0.5 counts as farther),
    those of the lowest `priority`, and those with the fewest requests in flight for their weight and score.
    """
    if all_ and not criteria.health:
        criteria = replace(criteria, health=frozenset(Health))
    caller = Caller(region=near_region, zone=near_zone)
    return await directory.discover(name, criteria, caller=caller, order=order, limit=limit)


@router.get("/versions")
async def compare_versions(directory: TheDirectory, name: ServiceQuery) -> ServiceVersions:
    """The versions of one service side by side: their instances, their share of traffic, blue or green, canary."""
    return await directory.compare_versions(name)


@router.get(
    "/graph",
    response_model=ServiceGraph,
    responses={200: {"content": {"text/vnd.mermaid": {}, "text/vnd.graphviz": {}}}},
)
async def show_graph(
    directory: TheDirectory,
    name: Annotated[str, Query(max_length=255, description="Only what this service has to do with")] = "",
    format_: Annotated[Literal["json", "mermaid", "dot"], Query(alias="format")] = "json",
) -> Any:
    """Who depends on whom: as declared in `depends_on`, and as callees were called.

    What was observed is a hint: callers name themselves. It counts the requests to instances that are listed now.
    """
    graph = await directory.graph(name)
    if format_ == "json":
        return graph
    if format_ == "mermaid":
        return PlainTextResponse(draw_mermaid(graph), media_type="text/vnd.mermaid")
    return PlainTextResponse(draw_dot(graph), media_type="text/vnd.graphviz")


@router.get("/events", responses={200: {"content": {"text/event-stream": {}}}}, response_class=Response)
async def follow_events(
    directory: TheDirectory,
    name: Annotated[str, Query(max_length=255, description="Only events of this service")] = "",
    last_event_id: Annotated[str, Header(max_length=64, description="Go on after this event")] = "",
) -> Response:
    """Server-sent events: `registered`, `updated`, `health-changed`, `deregistered`, each with the instance.

    The stream begins with `ready`. With `Last-Event-ID` it goes on from there; where that is too long ago, or from
    before a restart, it says `reset`: read the list anew. Comments keep a quiet connection alive.
    """
    return feed_stream(directory.feed, last_event_id, service=name)


@router.get("/{instance_id}")
async def get_instance(instance_id: str, directory: TheDirectory) -> Instance:
    """One instance."""
    return await directory.get_instance(instance_id)


@router.delete("/{instance_id}", status_code=204)
async def deregister(instance_id: str, directory: TheDirectory, access: Caller_) -> None:
    """Take an instance off the list; needs the join token."""
    await directory.deregister(instance_id, access)


@router.post("/{instance_id}/heartbeat")
async def heartbeat(
    instance_id: str, directory: TheDirectory, access: Caller_, report: Annotated[Report | None, Body()] = None
) -> Heartbeat:
    """Renew an instance's lease, and take it for passing; needs the join token. 404 means: register again.

    A report says how it does: discovery orders by it, and its share of traffic follows its score.
    """
    return await directory.renew(instance_id, report, access)


@router.get("/{instance_id}/metadata")
async def get_metadata(instance_id: str, directory: TheDirectory, response: Response) -> Metadata:
    """An instance's metadata, less the mesh's own keys (`toska-…`), with its version as `ETag`."""
    return _tagged(await directory.get_metadata(instance_id), response)


@router.get("/{instance_id}/metadata/history")
async def list_metadata(instance_id: str, directory: TheDirectory) -> list[Metadata]:
    """The last 20 versions, the present one first."""
    return await directory.list_metadata(instance_id)


@router.put("/{instance_id}/metadata")
async def replace_metadata(
    instance_id: str,
    body: Annotated[dict[str, Any], Body()],
    directory: TheDirectory,
    access: Caller_,
    response: Response,
    if_match: IfMatch = None,
) -> Metadata:
    """Replace the metadata; needs the join token."""
    wanted = read_replacement(body)
    expected = expected_versions(if_match, instance_id)
    return _tagged(await directory.change_metadata(instance_id, lambda _: wanted, expected, access), response)


@router.patch("/{instance_id}/metadata")
async def patch_metadata(
    instance_id: str,
    body: Annotated[dict[str, Any], Body()],
    directory: TheDirectory,
    access: Caller_,
    response: Response,
    if_match: IfMatch = None,
) -> Metadata:
    """Change some keys; `null` removes one (RFC 7396). Needs the join token."""
    patch = read_patch(body)
    expected = expected_versions(if_match, instance_id)
    changed = await directory.change_metadata(instance_id, lambda present: merge(present, patch), expected, access)
    return _tagged(changed, response)


def _tagged(metadata: Metadata, response: Response) -> Metadata:
    response.headers["etag"] = etag_of(metadata)
    return metadata


def _paged(found: Page[T], page: PageRequest, request: Request, response: Response) -> list[T]:
    response.headers["x-total-count"] = str(found.total)
    if found.cursor:
        rest = [item for item in request.query_params.multi_items() if item[0] not in {"page", "cursor", "limit"}]
        # By number for those who count, by cursor for the others.
        place = ("page", str(page.page + 1)) if page.page else ("cursor", found.cursor)
        query = urlencode([*rest, ("limit", str(page.limit)), place])
        response.headers["link"] = f'<{request.url.path}?{query}>; rel="next"'
    return found.items
