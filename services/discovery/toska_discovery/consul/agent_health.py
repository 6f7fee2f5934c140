"""`agent/health/service/…`: how instances are, for load balancers that read no more than a status code."""

from typing import Any

from toska_common.contracts.discovery import Health

from toska_discovery.check import Check, worst
from toska_discovery.consul.endpoints import Endpoints
from toska_discovery.consul.maintenance import NODE_CHECK, SERVICE_CHECK
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, encode
from toska_discovery.consul.views import agent_service
from toska_discovery.instance import Instance
from toska_discovery.node import OWN_NODE

MAINTENANCE = "maintenance"
_CODES = {Health.PASSING.value: 200, Health.WARNING.value: 429, Health.CRITICAL.value: 503, MAINTENANCE: 503}
"""The status of each state, from the best to the worst."""
_WORSE = [*_CODES]

_NO_DEFINITION = {
    "Interval": "0s", "Timeout": "0s", "DeregisterCriticalServiceAfter": "0s", "HTTP": "", "Header": None,
    "Method": "", "Body": "", "TLSSkipVerify": False, "TCP": "",
}  # fmt: skip
_JSON, _TEXT = (b"content-type", b"application/json"), (b"content-type", b"text/plain")


async def by_id(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET agent/health/service/id/:id`, with `format=text`."""
    if not request.name:
        raise Refusal(500, "Bad request: Missing serviceID")
    instance = here.registry.state.instances.get(request.name)
    if instance is None or instance.node != OWN_NODE:
        reason = f"ServiceId {request.name} not found"
        body: Any = {"AggregatedStatus": Health.CRITICAL.value, "Service": None, "Checks": None}
        # Consul gives this one text as JSON.
        return _reply(404, reason, reason if _wants_text(request) else body)
    entry = _entry(here, instance)
    status = entry["AggregatedStatus"]
    return _text(_CODES[status], status) if _wants_text(request) else _reply(_CODES[status], status, entry)


async def by_name(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET agent/health/service/name/:name`, with `format=text`: all its instances, and the state of the worst."""
    if not request.name:
        raise Refusal(500, "Bad request: Missing service Name")
    members = here.registry.state.services.get(request.name, {})
    entries = [_entry(here, instance) for _, instance in sorted(members.items()) if instance.node == OWN_NODE]
    if not entries:
        reason = f"ServiceName {request.name} Not Found"
        return _text(404, reason) if _wants_text(request) else _reply(404, reason, [])
    status = max((entry["AggregatedStatus"] for entry in entries), key=_WORSE.index)
    return _text(_CODES[status], status) if _wants_text(request) else _reply(_CODES[status], status, entries)


def _entry(here: Endpoints, instance: Instance) -> dict[str, Any]:
    of_node = here.registry.state.nodes[OWN_NODE].checks
    checks = [(check, instance) for _, check in sorted(instance.checks.items())]
    checks += [(check, None) for _, check in sorted(of_node.items())]
    if NODE_CHECK in of_node or SERVICE_CHECK + instance.service.id in instance.checks:
        status = MAINTENANCE
    else:
        status = worst(check.status for check, _ in checks).value
    shown = [_check(here, check, owner) for check, owner in checks]
    return {"AggregatedStatus": status, "Service": agent_service(instance.service), "Checks": shown or None}


def _check(here: Endpoints, check: Check, owner: Instance | None) -> dict[str, Any]:
    """A check as only these two endpoints show it."""
    lease = here.registry.state.find_lease(check.definition.id)
    return {
        "Node": here.node.name,
        "CheckID": check.definition.id,
        "Name": check.definition.name,
        "Status": check.status.value,
        "Notes": check.definition.notes,
        "Output": check.output if lease is None else lease.output,
        "ServiceID": "" if owner is None else owner.service.id,
        "ServiceName": "" if owner is None else owner.service.name,
        "ServiceTags": None,
        "Type": "",
        "Definition": _NO_DEFINITION,
        "CreateIndex": 0,
        "ModifyIndex": 0,
    }


def _wants_text(request: ConsulRequest) -> bool:
    return request.query.first("format") == "text" or request.headers.get(b"accept") == b"text/plain"


def _reply(status: int, reason: str, body: Any) -> Reply:
    return Reply(encode(body), status, (_JSON, _reason(reason)))


def _text(status: int, text: str) -> Reply:
    return Reply(text.encode(errors="replace"), status, (_TEXT, _reason(text)))


def _reason(text: str) -> tuple[bytes, bytes]:
    return b"x-consul-reason", text.encode("ascii", errors="replace")
