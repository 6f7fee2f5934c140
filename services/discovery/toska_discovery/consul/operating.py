"""`operator/…` and `coordinate/…` of a cluster of one, and `config/…` and `connect/…`, which there is nothing of.

What a single node knows about itself it tells; what would have to be kept or enforced by Consul's own mesh is refused
as Consul refuses it where that is switched off, and never taken and forgotten.
"""

from typing import Any

from toska_discovery.consul.endpoints import Endpoints, index_headers, refuse_other_datacenter
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, json_reply, text_reply
from toska_discovery.consul.views import CONSUL_VERSION, Node

NO_CONNECT = "Connect must be enabled in order to use this endpoint"
COORDINATE: dict[str, Any] = {"Vec": [0.0] * 8, "Error": 1.5, "Adjustment": 0, "Height": 0.00001}
"""Where a node is that nobody has measured the way to."""
CONFIG_KINDS = frozenset(
    {
        "ingress-gateway",
        "proxy-defaults",
        "service-defaults",
        "service-resolver",
        "service-router",
        "service-splitter",
        "terminating-gateway",
    }
)


async def get_raft_configuration(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET operator/raft/configuration`: the one server, which leads."""
    refuse_other_datacenter(here, request)
    server = {
        "ID": here.node.id,
        "Node": here.node.name,
        "Address": _address(here.node),
        "Leader": True,
        "ProtocolVersion": "3",
        "Voter": True,
    }
    return json_reply({"Servers": [server], "Index": 0})


async def remove_raft_peer(here: Endpoints, request: ConsulRequest) -> Reply:
    """`DELETE operator/raft/peer`: there is no other, and the one there is cannot be removed."""
    peer, address = request.query.first("id"), request.query.first("address")
    if not peer and not address:
        what = "?id with the server's ID or ?address with IP:port of peer to remove"
        raise Refusal(400, f"Bad request: Must specify either {what}")
    if peer and address:
        raise Refusal(400, "Bad request: Must specify only one of ?id or ?address")
    if here.node.id == peer or _address(here.node) == address:
        raise Refusal(500, "The only server of a cluster cannot be removed")
    kind, value = ("id", peer) if peer else ("address", address)
    raise Refusal(500, f'{kind} "{value}" was not found in the Raft configuration')


async def get_autopilot_configuration(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET operator/autopilot/configuration`: Consul's defaults, since there is nothing to steer."""
    refuse_other_datacenter(here, request)
    return json_reply(
        {
            "CleanupDeadServers": True,
            "LastContactThreshold": "200ms",
            "MaxTrailingLogs": 250,
            "MinQuorum": 0,
            "ServerStabilizationTime": "10s",
            "RedundancyZoneTag": "",
            "DisableUpgradeMigration": False,
            "UpgradeVersionTag": "",
            "CreateIndex": here.node.index,
            "ModifyIndex": here.node.index,
        }
    )


async def set_autopilot_configuration(_: Endpoints, _request: ConsulRequest) -> Reply:
    """`PUT operator/autopilot/configuration`."""
    return text_reply(400, "Autopilot has nothing to steer in this registry, which is a single server")


async def get_autopilot_health(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET operator/autopilot/health`: 429 while the registry cannot write what it acknowledges, as Consul has it."""
    refuse_other_datacenter(here, request)
    healthy = here.registry.store.failure is None
    server = {
        "ID": here.node.id,
        "Name": here.node.name,
        "Address": _address(here.node),
        "SerfStatus": "alive",
        "Version": CONSUL_VERSION,
        "Leader": True,
        "LastContact": "0s",
        "LastTerm": 1,
        "LastIndex": here.registry.state.index,
        "Healthy": healthy,
        "Voter": True,
        "StableSince": here.opened_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    reply = json_reply({"Healthy": healthy, "FailureTolerance": 0, "Servers": [server]})
    return reply if healthy else Reply(reply.body, 429, reply.headers)


async def list_coordinate_datacenters(here: Endpoints, _: ConsulRequest) -> Reply:
    """`GET coordinate/datacenters`."""
    entry = {"Datacenter": here.node.datacenter, "AreaID": "wan", "Coordinates": [_coordinate(here.node)]}
    return json_reply([entry])


async def list_coordinates(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET coordinate/nodes`; other nodes tell nobody where they are."""
    refuse_other_datacenter(here, request)
    index = await here.changed(request, (), lambda: here.node.index)
    return json_reply(_of_segment(here.node, request), *index_headers(index))


async def get_coordinate(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET coordinate/node/:node`."""
    refuse_other_datacenter(here, request)
    index = await here.changed(request, (), lambda: here.node.index)
    found = _of_segment(here.node, request) if request.name == here.node.name else []
    return json_reply(found, *index_headers(index)) if found else Reply(status=404)


async def update_coordinate(_: Endpoints, _request: ConsulRequest) -> Reply:
    """`PUT coordinate/update`."""
    return text_reply(400, "Network coordinates are not kept by this registry")


async def refuse_connect(_: Endpoints, _request: ConsulRequest) -> Reply:
    """Everything of Consul's own service mesh: certificates, intentions, authorisation."""
    return text_reply(500, NO_CONNECT)


async def read_config(_: Endpoints, request: ConsulRequest) -> Reply:
    """`GET config/:kind[/:name]`: there are none."""
    kind, _slash, name = request.name.partition("/")
    if kind and kind not in CONFIG_KINDS:
        return text_reply(500, f"invalid config entry kind: {kind}")
    if name:
        return text_reply(404, f'Config entry not found for "{kind}" / "{name}"')
    return json_reply([], *index_headers(1))


async def delete_config(_: Endpoints, request: ConsulRequest) -> Reply:
    """`DELETE config/:kind/:name`: one that is not there is fine."""
    kind, _slash, name = request.name.partition("/")
    if not name:
        return text_reply(404, "Must provide both a kind and name to delete")
    return json_reply({}) if kind in CONFIG_KINDS else text_reply(400, f"invalid config entry kind: {kind}")


async def write_config(_: Endpoints, _request: ConsulRequest) -> Reply:
    """`PUT config`."""
    return text_reply(400, "Config entries are not supported by this registry; routes and policies are the router's")


def _address(node: Node) -> str:
    return f"[{node.address}]:{node.port}" if ":" in node.address else f"{node.address}:{node.port}"


def _coordinate(node: Node) -> dict[str, Any]:
    return {"Node": node.name, "Segment": "", "Coord": COORDINATE}


def _of_segment(node: Node, request: ConsulRequest) -> list[dict[str, Any]]:
    return [] if request.query.first("segment") else [_coordinate(node)]


_CONNECT = {"GET": refuse_connect, "PUT": refuse_connect, "POST": refuse_connect, "DELETE": refuse_connect}

EXACT = {
    "operator/raft/configuration": {"GET": get_raft_configuration},
    "operator/raft/peer": {"DELETE": remove_raft_peer},
    "operator/autopilot/configuration": {"GET": get_autopilot_configuration, "PUT": set_autopilot_configuration},
    "operator/autopilot/health": {"GET": get_autopilot_health},
    "coordinate/datacenters": {"GET": list_coordinate_datacenters},
    "coordinate/nodes": {"GET": list_coordinates},
    "coordinate/update": {"PUT": update_coordinate},
    "config": {"PUT": write_config},
    "connect/intentions": _CONNECT,
    "connect/ca/roots": _CONNECT,
    "connect/ca/configuration": _CONNECT,
    "agent/connect/authorize": _CONNECT,
    "agent/connect/ca/roots": _CONNECT,
}
NAMED = {
    "coordinate/node": {"GET": get_coordinate},
    "config": {"GET": read_config, "DELETE": delete_config},
    "connect/intentions": _CONNECT,
    "agent/connect/ca": _CONNECT,
}
