"""`catalog/register` and `catalog/deregister`: nodes that no agent speaks for.

Nothing is registered on the registry's own node in this way: its instances register with the agent, and a Consul agent
takes away again what somebody else writes about it.
"""

from toska_discovery.consul.access import require_admin
from toska_discovery.consul.decode_catalog import decode_departure, decode_entry
from toska_discovery.consul.endpoints import Endpoints
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, json_reply
from toska_discovery.consul.views import CONSUL
from toska_discovery.errors import UnknownInstance
from toska_discovery.foreign import CatalogEntry
from toska_discovery.node import OWN_NODE
from toska_discovery.session import SERF_HEALTH


async def register(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT catalog/register`."""
    require_admin(request.access, "the catalog")
    entry = decode_entry(await request.body(), here.rules, here.node.datacenter)
    if here.answers.inventory.find_node(entry.node.name) == OWN_NODE:
        _check_own(here, entry)
        return json_reply(value=True)
    if entry.node.id == here.node.id:
        raise Refusal(500, f"Bad node ID: it is that of the registry's own node {here.node.name}")
    if entry.service is not None and entry.service.name == CONSUL:
        raise Refusal(400, f"Invalid service: {CONSUL} is the registry's own")
    try:
        await here.registry.register_foreign(entry)
    except UnknownInstance as error:
        raise Refusal(500, f"failed inserting check: {error.detail}") from error
    return json_reply(value=True)


async def deregister(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT catalog/deregister`; what is not there is fine."""
    require_admin(request.access, "the catalog")
    departure = decode_departure(await request.body(), here.node.datacenter)
    if here.answers.inventory.find_node(departure.node) != OWN_NODE:
        await here.registry.deregister_foreign(
            departure.node, instance_id=departure.service_id, check_id=departure.check_id
        )
    elif departure.service_id and departure.service_id != CONSUL:
        await here.registry.deregister(departure.service_id)
    elif departure.check_id and departure.check_id != SERF_HEALTH:
        await here.registry.deregister_check(departure.check_id)
    else:
        raise Refusal(400, f"{departure.node} is the registry's own node, and stays for as long as it runs")
    return json_reply(value=True)


def _check_own(here: Endpoints, entry: CatalogEntry) -> None:
    """Let the registry's own node be written as it is, as some clients do before all else, and no other way."""
    node = entry.node
    changes_node = not entry.keep_node and (
        node.address != here.node.address or node.id not in {"", here.node.id} or node.meta or node.tagged_addresses
    )
    if changes_node or entry.service is not None or entry.checks:
        raise Refusal(
            400, f"{here.node.name} is the registry's own node; register services and checks on it with the agent"
        )
