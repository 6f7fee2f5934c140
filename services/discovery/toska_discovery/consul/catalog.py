"""`catalog/…` and `health/…`: who is there, and how they are."""

from toska_discovery.changes import CHECKS, NODES, SERVICES, service_topic
from toska_discovery.consul.answers import Selection, selection_of
from toska_discovery.consul.endpoints import Endpoints, index_headers, refuse_other_datacenter
from toska_discovery.consul.request import ConsulRequest, Header, Refusal, Reply, encoded_reply, json_reply
from toska_discovery.consul.views import CONSUL


async def list_datacenters(here: Endpoints, _: ConsulRequest) -> Reply:
    """`GET catalog/datacenters`."""
    return json_reply([here.node.datacenter])


async def list_nodes(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET catalog/nodes`."""
    refuse_other_datacenter(here, request)
    index = await here.changed(request, (NODES,), lambda: here.registry.state.listing.nodes_index)
    return encoded_reply(here.answers.nodes(_selection(here, request)), *_headers(request, index))


async def list_services(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET catalog/services`; without `filter`, as in Consul 1.8."""
    refuse_other_datacenter(here, request)
    if request.query.first("filter"):
        raise Refusal(400, "Filter expressions are not supported by catalog/services")
    index = await here.changed(request, (SERVICES, NODES), lambda: _nodes_or_services(here))
    return encoded_reply(here.answers.services(_selection(here, request)), *_headers(request, index))


async def list_catalog_service(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET catalog/service/:name`."""
    index = await _changed_service(here, request)
    body = here.answers.catalog_service(request.name, _selection(here, request))
    return encoded_reply(body, *_headers(request, index))


async def get_node(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET catalog/node/:node`; `null` for one that is not there."""
    index = await _changed_node(here, request)
    return encoded_reply(here.answers.catalog_node(request.name), *_headers(request, index))


async def list_node_services(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET catalog/node-services/:node`."""
    index = await _changed_node(here, request)
    return encoded_reply(here.answers.node_services(request.name), *_headers(request, index))


async def list_connect(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET catalog/connect/:name` and `health/connect/:name`: there are no Connect proxies, so nobody is listed."""
    index = await _changed_service(here, request)
    return encoded_reply(b"[]", *_headers(request, index))


async def list_health_service(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET health/service/:name`."""
    passing = request.query.flag("passing")
    index = await _changed_service(here, request)
    body = here.answers.health_service(request.name, _selection(here, request), passing=passing)
    return encoded_reply(body, *_headers(request, index))


async def list_health_checks(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET health/checks/:service`."""
    index = await _changed_service(here, request)
    body = here.answers.health_checks(request.name, _selection(here, request))
    return encoded_reply(body, *_headers(request, index))


async def list_health_state(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET health/state/:state`."""
    if not request.name:
        raise Refusal(400, "Missing check state")
    refuse_other_datacenter(here, request)
    index = await here.changed(request, (CHECKS, NODES), lambda: _nodes_or_checks(here))
    body = here.answers.health_state(request.name, _selection(here, request))
    return encoded_reply(body, *_headers(request, index))


async def list_health_node(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET health/node/:node`; an empty list for one that is not there."""
    _require_node_name(request)
    refuse_other_datacenter(here, request)
    index = await here.changed(request, (CHECKS, NODES), lambda: _nodes_or_checks(here))
    return encoded_reply(here.answers.health_node(request.name), *_headers(request, index))


async def _changed_service(here: Endpoints, request: ConsulRequest) -> int:
    name = request.name
    if not name:
        raise Refusal(400, "Missing service name")
    refuse_other_datacenter(here, request)
    if name == CONSUL:
        # The registry's own service changes with the checks of its node, which do not know that it is there.
        topics = (service_topic(name), CHECKS)
        return await here.changed(request, topics, lambda: here.answers.inventory.service_index(name))
    return await here.changed(request, (service_topic(name),), lambda: here.registry.state.service_index(name))


async def _changed_node(here: Endpoints, request: ConsulRequest) -> int:
    _require_node_name(request)
    refuse_other_datacenter(here, request)
    return await here.changed(request, (SERVICES, NODES), lambda: _nodes_or_services(here))


def _require_node_name(request: ConsulRequest) -> None:
    if not request.name:
        raise Refusal(400, "Missing node name")


def _nodes_or_services(here: Endpoints) -> int:
    return max(here.registry.state.services_index, here.registry.state.listing.nodes_index)


def _nodes_or_checks(here: Endpoints) -> int:
    return max(here.registry.state.checks_index, here.registry.state.listing.nodes_index)


def _selection(here: Endpoints, request: ConsulRequest) -> Selection:
    return selection_of(request.query, here.node)


def _headers(request: ConsulRequest, index: int) -> tuple[Header, ...]:
    return index_headers(index, stale=request.query.has("stale"))
