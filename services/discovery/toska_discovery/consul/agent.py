"""`agent/…` and `status/…`: what is registered here, and who the agent is."""

from dataclasses import replace
from typing import Any

from toska_common import __version__
from toska_common.contracts.discovery import Health

from toska_discovery.changes import service_topic
from toska_discovery.consul.access import require_admin, require_for_names
from toska_discovery.consul.decode import decode_registration, decode_update
from toska_discovery.consul.decode_checks import CHECKS_MAX, decode_check
from toska_discovery.consul.endpoints import Endpoints, Handler
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, json_reply, text_reply
from toska_discovery.consul.views import CONSUL, CONSUL_VERSION, SEGMENT, Node, agent_service, check_body, content_hash
from toska_discovery.errors import UnknownCheck
from toska_discovery.instance import Instance
from toska_discovery.node import OWN_NODE


async def register_service(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT agent/service/register`."""
    trusted = request.access == "admin"
    service, checks = decode_registration(await request.body(), here.rules, trusted=trusted)
    require_for_names(request.access, here.registry.state.touched_by(service, checks))
    if service.id == CONSUL:
        raise Refusal(400, f"Invalid service ID: {CONSUL} is the registry's own service")
    for check in checks:
        _require_for_check(here, request, check.id)
    replace = request.query.first("replace-existing-checks") == "true"
    await here.registry.register(service, checks, replace_checks=replace)
    return Reply()


async def deregister_service(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT agent/service/deregister/:id`; an id that is not there is fine, as before Consul 1.11."""
    if not request.name:
        raise Refusal(500, "ServiceID missing")
    instance = here.registry.state.instances.get(request.name)
    if instance is not None:
        require_for_names(request.access, [instance.service.name])
    await here.registry.deregister(request.name)
    return Reply()


def report(status: Health) -> Handler:
    """`PUT agent/check/pass/:id`, `warn` and `fail`."""

    async def handle(here: Endpoints, request: ConsulRequest) -> Reply:
        return _report(here, request, status, request.query.first("note"))

    return handle


async def update_check(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT agent/check/update/:id`."""
    status, output = decode_update(await request.body())
    return _report(here, request, status, output)


def _report(here: Endpoints, request: ConsulRequest, status: Health, output: str) -> Reply:
    _require_for_check(here, request, request.name)
    try:
        here.registry.report(request.name, status, output)
    except UnknownCheck as error:
        return text_reply(500, error.detail)
    return Reply()


async def register_check(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT agent/check/register`: of an instance, or of the node."""
    check, instance_id = decode_check(await request.body(), here.rules)
    state = here.registry.state
    if instance_id is None:
        require_admin(request.access, "a check of the node")
        checks = state.nodes[OWN_NODE].checks
    else:
        instance = state.instances.get(instance_id)
        if instance is None:
            return text_reply(500, f'ServiceID "{instance_id}" does not exist')
        require_for_names(request.access, [instance.service.name])
        checks = instance.checks
    _require_for_check(here, request, check.id)
    if check.id not in checks and len(checks) >= CHECKS_MAX:
        raise Refusal(400, f"Invalid check: {CHECKS_MAX} checks are the most that one service or node can have")
    await here.registry.register_check(check, instance_id)
    return Reply()


async def deregister_check(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT agent/check/deregister/:id`; an id that is not there is fine."""
    if not request.name:
        raise Refusal(500, "CheckID missing")
    _require_for_check(here, request, request.name)
    await here.registry.deregister_check(request.name)
    return Reply()


def _require_for_check(here: Endpoints, request: ConsulRequest, check_id: str) -> None:
    """Keep the checks of the mesh's own services, and those of the node, to the admin token."""
    found = here.registry.state.find_check(check_id)
    if found is None:
        return
    if found[0] is None:
        require_admin(request.access, "a check of the node")
    else:
        require_for_names(request.access, [found[0].service.name])


async def list_services(here: Endpoints, _: ConsulRequest) -> Reply:
    """`GET agent/services`."""
    instances = here.registry.state.listing.instances_on(OWN_NODE)
    found = {instance.service.id: agent_service(instance.service) for instance in instances}
    return json_reply(dict(sorted(found.items())))


async def get_service(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET agent/service/:id`; with `hash` it blocks until the answer would be another."""
    instances = here.registry.state.instances

    def hash_now() -> str | None:
        found = instances.get(request.name)
        return None if found is None else content_hash(agent_service(found.service))

    instance = instances.get(request.name)
    if instance is not None:
        await here.changed_content(request, (service_topic(instance.service.name),), hash_now)
        instance = instances.get(request.name)
    if instance is None or instance.node != OWN_NODE:
        return text_reply(404, f"unknown service ID: {request.name}")
    body = agent_service(instance.service)
    stamp = content_hash(body)
    return json_reply({**body, "ContentHash": stamp}, (b"x-consul-contenthash", stamp.encode()))


async def list_checks(here: Endpoints, _: ConsulRequest) -> Reply:
    """`GET agent/checks`: with the output of the last report, and the agent's own indexes, which are 0."""
    found: dict[str, Any] = {}
    for owner in (None, *here.registry.state.listing.instances_on(OWN_NODE)):
        found.update(agent_checks(here, owner))
    return json_reply(dict(sorted(found.items())))


def agent_checks(here: Endpoints, owner: Instance | None) -> dict[str, dict[str, Any]]:
    """The checks of an instance, or with `None` those that are the node's own, as the agent knows them, by id."""
    state = here.registry.state
    checks = state.nodes[OWN_NODE].checks if owner is None else owner.checks
    found: dict[str, dict[str, Any]] = {}
    for check_id, check in checks.items():
        lease = state.find_lease(check_id)
        latest = check if lease is None else replace(check, output=lease.output)
        found[check_id] = {**check_body(here.node.name, owner, latest), "CreateIndex": 0, "ModifyIndex": 0}
    return found


async def get_self(here: Endpoints, _: ConsulRequest) -> Reply:
    """`GET agent/self`."""
    node, state = here.node, here.registry.state
    index = str(state.index)
    checks = sum(len(instance.checks) for instance in state.instances.values())
    return json_reply(
        {
            "Config": {
                "Datacenter": node.datacenter,
                "NodeName": node.name,
                "NodeID": node.id,
                "Revision": f"toska-mesh-{__version__}",
                "Server": True,
                "Version": CONSUL_VERSION,
            },
            "DebugConfig": {
                "ACLsEnabled": here.acl,
                "Datacenter": node.datacenter,
                "HTTPPort": node.port,
                "NodeName": node.name,
                "ServerMode": True,
                "TaggedAddresses": node.tagged_addresses,
                "Version": CONSUL_VERSION,
            },
            "Coord": {"Vec": [0.0] * 8, "Error": 1.5, "Adjustment": 0, "Height": 0.00001},
            "Member": _member(node, acl=here.acl),
            "Stats": {
                "agent": {"checks": str(checks), "services": str(len(state.instances))},
                "build": {"prerelease": "", "revision": "", "version": CONSUL_VERSION},
                "consul": {
                    "acl": "enabled" if here.acl else "disabled",
                    "leader": "true",
                    "leader_addr": _leader(node),
                    "server": "true",
                },
                "raft": {"applied_index": index, "commit_index": index, "last_log_index": index, "state": "Leader"},
            },
            "Meta": SEGMENT,
        }
    )


async def list_members(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET agent/members`."""
    if request.query.first("segment"):
        raise Refusal(500, "Network segments are not supported in this version of Consul")
    member = _member(here.node, acl=here.acl)
    if request.query.first("wan") == "1":
        member["Name"] = f"{here.node.name}.{here.node.datacenter}"
    return json_reply([member])


async def get_leader(here: Endpoints, _: ConsulRequest) -> Reply:
    """`GET status/leader`."""
    return json_reply(_leader(here.node))


async def list_peers(here: Endpoints, _: ConsulRequest) -> Reply:
    """`GET status/peers`."""
    return json_reply([_leader(here.node)])


def _leader(node: Node) -> str:
    return f"[{node.address}]:{node.port}" if ":" in node.address else f"{node.address}:{node.port}"


def _member(node: Node, *, acl: bool) -> dict[str, Any]:
    return {
        "Name": node.name,
        "Addr": node.address,
        "Port": node.port,
        "Tags": {
            "acls": "1" if acl else "0",
            "build": f"{CONSUL_VERSION}:",
            "dc": node.datacenter,
            "id": node.id,
            "port": str(node.port),
            "raft_vsn": "3",
            "role": "consul",
            "segment": "",
            "vsn": "2",
            "vsn_max": "3",
            "vsn_min": "2",
        },
        "Status": 1,
        "ProtocolMin": 1,
        "ProtocolMax": 5,
        "ProtocolCur": 2,
        "DelegateMin": 2,
        "DelegateMax": 5,
        "DelegateCur": 4,
    }
