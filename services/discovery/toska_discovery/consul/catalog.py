"""`catalog/…` and `health/…`: who is there, and how they are."""

from toska_discovery.changes import CHECKS, SERVICES, service_topic
from toska_discovery.consul.endpoints import Endpoints, index_headers
from toska_discovery.consul.request import ConsulRequest, Header, Refusal, Reply, encoded_reply, json_reply
from toska_discovery.consul.views import CONSUL, SEGMENT
from toska_discovery.node import OWN_NODE


async def list_datacenters(here: Endpoints, _: ConsulRequest) -> Reply:
    """`GET catalog/datacenters`."""
    return json_reply([here.node.datacenter])


async def list_nodes(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET catalog/nodes`."""
    _check_common(here, request)
    index = await here.changed(request, (), lambda: here.node.index)
    return encoded_reply(here.answers.nodes() if _takes_node(request) else b"[]", *_headers(request, index))


async def list_services(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET catalog/services`; without `filter`, as in Consul 1.8."""
    _check_common(here, request)
    if request.query.first("filter"):
        raise Refusal(400, "Filter expressions are not supported by catalog/services")
    index = await here.changed(request, (SERVICES,), lambda: here.registry.state.services_index)
    return encoded_reply(here.answers.services() if _takes_node(request) else b"{}", *_headers(request, index))


async def list_catalog_service(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET catalog/service/:name`."""
    index = await _changed_service(here, request)
    body = here.answers.catalog_service(request.name, request.query.all("tag"))
    return encoded_reply(body if _takes_node(request) else b"[]", *_headers(request, index))


async def list_health_service(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET health/service/:name`."""
    passing = request.query.flag("passing")
    index = await _changed_service(here, request)
    body = here.answers.health_service(request.name, request.query.all("tag"), passing=passing)
    return encoded_reply(body if _takes_node(request) else b"[]", *_headers(request, index))


async def list_health_checks(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET health/checks/:service`."""
    index = await _changed_service(here, request)
    body = here.answers.health_checks(request.name)
    return encoded_reply(body if _takes_node(request) else b"[]", *_headers(request, index))


async def list_health_state(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET health/state/:state`."""
    if not request.name:
        raise Refusal(400, "Missing check state")
    _check_common(here, request)
    index = await here.changed(request, (CHECKS,), lambda: here.registry.state.checks_index)
    body = here.answers.health_state(request.name)
    return encoded_reply(body if _takes_node(request) else b"[]", *_headers(request, index))


async def _changed_service(here: Endpoints, request: ConsulRequest) -> int:
    name = request.name
    if not name:
        raise Refusal(400, "Missing service name")
    _check_common(here, request)
    if name == CONSUL and name not in here.registry.state.services:
        return await here.changed(
            request,
            (service_topic(name), CHECKS),
            lambda: max(here.node.index, here.registry.state.nodes[OWN_NODE].checks_index),
        )
    return await here.changed(request, (service_topic(name),), lambda: here.registry.state.service_index(name))


def _check_common(here: Endpoints, request: ConsulRequest) -> None:
    datacenter = request.query.first("dc")
    if datacenter and datacenter != here.node.datacenter:
        raise Refusal(500, "No path to datacenter")


def _takes_node(request: ConsulRequest) -> bool:
    """Whether the one node there is has all the metadata that is asked for (`node-meta=key:value`)."""
    wanted = (pair.partition(":") for pair in request.query.all("node-meta"))
    return all(SEGMENT.get(key) == value for key, _, value in wanted)


def _headers(request: ConsulRequest, index: int) -> tuple[Header, ...]:
    return index_headers(index, stale=request.query.has("stale"))
