"""`agent/maintenance` and `agent/service/maintenance`: taking a node or an instance out of service for a while.

It is done with a critical check, as in Consul, so that everybody who asks for what passes leaves it alone; unlike other
checks nobody reports on it, and only leaving maintenance takes it away.
"""

from toska_common.contracts.discovery import Health

from toska_discovery.check import CheckDefinition, CheckKind
from toska_discovery.consul.access import require_admin, require_for_names
from toska_discovery.consul.endpoints import Endpoints
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, text_reply
from toska_discovery.consul.rules import NOTES_MAX
from toska_discovery.node import OWN_NODE

NODE_CHECK, SERVICE_CHECK = "_node_maintenance", "_service_maintenance:"
"""Consul's ids of these checks; that of an instance ends in its own."""
_TRUE, _FALSE = {"1", "t", "T", "true", "TRUE", "True"}, {"0", "f", "F", "false", "FALSE", "False"}


async def node(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT agent/maintenance`, with `enable` and `reason`."""
    enable = _enable(request)
    require_admin(request.access, "the maintenance of the node")
    await _switch(here, request, enable, "Node", NODE_CHECK, None)
    return Reply()


async def service(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT agent/service/maintenance/:id`, with `enable` and `reason`."""
    if not request.name:
        raise Refusal(400, "Missing service ID")
    enable = _enable(request)
    instance = here.registry.state.instances.get(request.name)
    if instance is None or instance.node != OWN_NODE:
        return text_reply(404, f'No service registered with ID "{request.name}"')
    require_for_names(request.access, [instance.service.name])
    await _switch(here, request, enable, "Service", SERVICE_CHECK + request.name, request.name)
    return Reply()


async def _switch(
    here: Endpoints, request: ConsulRequest, enable: bool, what: str, check_id: str, instance_id: str | None
) -> None:
    if not enable:
        await here.registry.deregister_check(check_id)
    elif here.registry.state.find_check(check_id) is None:  # otherwise the first reason stays, as in Consul
        default = (
            f"Maintenance mode is enabled for this {what.lower()}, but no reason was provided. "
            "This is a default message."
        )
        check = CheckDefinition(
            check_id,
            f"{what} Maintenance Mode",
            notes=_reason(request) or default,
            status=Health.CRITICAL,
            kind=CheckKind.MAINTENANCE,
        )
        await here.registry.register_check(check, instance_id)


def _enable(request: ConsulRequest) -> bool:
    if not request.query.has("enable"):
        raise Refusal(400, "Missing value for enable")
    text = request.query.first("enable")
    if text not in _TRUE | _FALSE:
        raise Refusal(400, f'Invalid value for enable: "{text}"')
    return text in _TRUE


def _reason(request: ConsulRequest) -> str:
    reason = request.query.first("reason")
    if len(reason) > NOTES_MAX:
        raise Refusal(400, f"Invalid reason: at most {NOTES_MAX} characters")
    return reason
