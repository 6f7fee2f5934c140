"""The bodies of `catalog/register` and `catalog/deregister`, read to the domain's values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from toska_common.contracts.discovery import Health

from toska_discovery.check import OUTPUT_MAX_BYTES, Check, CheckDefinition, CheckKind, bounded_output
from toska_discovery.consul.decode import (
    addresses,
    check_address,
    check_meta,
    check_tags,
    decode_weights,
)
from toska_discovery.consul.decode_checks import CHECKS_MAX
from toska_discovery.consul.durations import format_duration
from toska_discovery.consul.gojson import (
    Struct,
    anything,
    boolean,
    decode_json,
    duration,
    integer,
    mismatch,
    string,
    string_lists,
    string_map,
    strings,
)
from toska_discovery.consul.request import Refusal
from toska_discovery.consul.rules import ID_MAX, NAME_MAX, NOTES_MAX, RegistrationRules, bound
from toska_discovery.foreign import CatalogEntry
from toska_discovery.instance import ServiceDefinition
from toska_discovery.node import NodeDefinition

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")

SERVICE = Struct.exact(
    Kind=string, ID=string, Service=string, Tags=strings, Address=string, TaggedAddresses=addresses, Meta=string_map,
    Port=integer, Weights=anything, EnableTagOverride=boolean, Proxy=anything, Connect=anything, Namespace=string,
    CreateIndex=integer, ModifyIndex=integer,
)  # fmt: skip

_DEFINITION = Struct.exact(
    Interval=duration, IntervalDuration=duration, OutputMaxSize=integer, Timeout=duration, TimeoutDuration=duration,
    DeregisterCriticalServiceAfter=duration, DeregisterCriticalServiceAfterDuration=duration, HTTP=string,
    TLSSkipVerify=boolean, Header=string_lists, Method=string, Body=string, TCP=string, GRPC=string, GRPCUseTLS=boolean,
    AliasNode=string, AliasService=string, TTL=duration, ScriptArgs=strings, DockerContainerID=string, Shell=string,
)  # fmt: skip

CHECK = Struct.exact(
    Node=string, CheckID=string, Name=string, Status=string, Notes=string, Output=string, ServiceID=string,
    ServiceName=string, ServiceTags=strings, Type=string, Definition=_DEFINITION.at, Namespace=string,
    CreateIndex=integer, ModifyIndex=integer,
)  # fmt: skip

_REGISTER = Struct.exact(
    Datacenter=string, ID=string, Node=string, Address=string, TaggedAddresses=string_map, NodeMeta=string_map,
    Service=SERVICE.at, Check=CHECK.at, Checks=anything, SkipNodeUpdate=boolean, Token=string,
    WriteRequest=anything, CreateIndex=integer, ModifyIndex=integer,
)  # fmt: skip

_DEREGISTER = Struct.exact(
    Datacenter=string,
    Node=string,
    Address=string,
    ServiceID=string,
    CheckID=string,
    Namespace=string,
    WriteRequest=anything,
)

_STATUSES = {status.value: status for status in Health}
TYPES = {kind.value: kind for kind in CheckKind}
_DURATIONS = ("Interval", "Timeout", "DeregisterCriticalServiceAfter")


@dataclass(frozen=True, slots=True)
class Departure:
    """What `catalog/deregister` asks for: an instance, a check, or else the whole node."""

    node: str
    service_id: str
    check_id: str


def decode_entry(body: bytes, rules: RegistrationRules, datacenter: str) -> CatalogEntry:
    """Read the body of `catalog/register`.

    Raises:
        Refusal: What is wrong, in Consul's words where Consul has some.
    """
    fields = _REGISTER.decode(decode_json(body))
    _check_datacenter(fields, datacenter)
    return CatalogEntry(
        node=decode_node(fields, rules),
        service=decode_service(fields.get("Service"), fields.get("Address", ""), rules),
        checks=_decode_checks(fields),
        keep_node=fields.get("SkipNodeUpdate", False),
    )


def decode_departure(body: bytes, datacenter: str) -> Departure:
    """Read the body of `catalog/deregister`.

    Raises:
        Refusal: What is wrong, in Consul's words.
    """
    fields = _DEREGISTER.decode(decode_json(body))
    _check_datacenter(fields, datacenter)
    if not fields.get("Node"):
        raise Refusal(500, "Must provide node")
    return Departure(fields["Node"], fields.get("ServiceID", ""), fields.get("CheckID", ""))


def _check_datacenter(fields: Mapping[str, Any], datacenter: str) -> None:
    if fields.get("Datacenter", "") not in {"", datacenter}:
        raise Refusal(500, "No path to datacenter")


def decode_node(fields: Mapping[str, Any], rules: RegistrationRules) -> NodeDefinition:
    name, address, own_id = fields.get("Node", ""), fields.get("Address", ""), fields.get("ID", "")
    if not name:
        raise Refusal(500, "Must provide node")
    if not address and not fields.get("SkipNodeUpdate"):
        raise Refusal(500, "Must provide address if SkipNodeUpdate is not set")
    if own_id and not _UUID.fullmatch(own_id):
        problem = "uuid string is wrong length" if len(own_id) != 36 else "uuid is improperly formatted"
        raise Refusal(500, f"Bad node ID: {problem}")
    bound("node name", name, NAME_MAX)
    tagged: Mapping[str, str] | None = fields.get("TaggedAddresses")
    for host in (address, *(tagged or {}).values()):
        check_address("node", host, 0, rules.targets)
    meta: dict[str, str] | None = fields.get("NodeMeta")
    return NodeDefinition(name, address, own_id, tagged, None if meta is None else check_meta("Node", meta))


def decode_service(fields: Mapping[str, Any] | None, at: str, rules: RegistrationRules) -> ServiceDefinition | None:
    """Read `Service`; without an address it has that of its node, `at`."""
    if fields is None:
        return None
    name, own_id = fields.get("Service", ""), fields.get("ID", "")
    if not name:
        raise Refusal(500, "Must provide service name with ID" if own_id else "Must provide service name")
    bound("service name", name, NAME_MAX)
    bound("service ID", own_id, ID_MAX)
    for part in ("Kind", "Proxy", "Connect", "Namespace"):
        if fields.get(part) not in (None, "", {}, "default"):
            raise Refusal(400, f"Invalid service: {part} is not supported by this registry")
    address, port = fields.get("Address", ""), fields.get("Port", 0)
    tagged: dict[str, tuple[str, int]] = fields.get("TaggedAddresses", {})
    for host, host_port in ((address, port), *tagged.values()):
        check_address("service", host or at, host_port, rules.targets)
    return ServiceDefinition(
        id=own_id or name,
        name=name,
        address=address,
        port=port,
        tags=check_tags(fields.get("Tags", ())),
        meta=check_meta("Service", fields.get("Meta", {})),
        tagged_addresses=tagged,
        weights=decode_weights(fields.get("Weights")),
        enable_tag_override=fields.get("EnableTagOverride", False),
    )


def _decode_checks(fields: Mapping[str, Any]) -> list[tuple[str | None, Check]]:
    several: Any = fields.get("Checks", [])
    if not isinstance(several, list):
        raise mismatch(several, "Checks", "structs.HealthChecks")
    bodies = [CHECK.decode(part) for part in cast("list[Any]", several)]
    if fields.get("Check") is not None:
        bodies.append(fields["Check"])
    if len(bodies) > CHECKS_MAX:
        raise Refusal(400, f"Invalid check: at most {CHECKS_MAX} checks can be written at once")
    return [decode_check(body, fields["Node"]) for body in bodies]


def decode_check(body: Mapping[str, Any], node: str) -> tuple[str | None, Check]:
    at = body.get("Node") or node
    if at.lower() != node.lower():
        raise Refusal(500, f'check node "{at}" does not match node "{node}"')
    check_id = body.get("CheckID") or body.get("Name", "")
    if not check_id:
        raise Refusal(400, "Invalid check: CheckID or Name must be given")
    bound("check ID", check_id, ID_MAX)
    bound("check name", body.get("Name", ""), NAME_MAX)
    status, kind = body.get("Status") or Health.CRITICAL.value, body.get("Type", "")
    if status not in _STATUSES:
        raise Refusal(400, f"Invalid check status: '{status}'")
    if kind not in TYPES:
        raise Refusal(400, f"Invalid check type: '{kind}'")
    notes = body.get("Notes", "")
    if len(notes) > NOTES_MAX:
        raise Refusal(400, f"Invalid check: Notes is too long (limit: {NOTES_MAX} characters)")
    document = _show_definition(body.get("Definition", {}))
    definition = CheckDefinition(
        check_id, body.get("Name", ""), None, notes, _STATUSES[status],
        kind=TYPES[kind] if kind else _kind_of(document), document=document,
    )  # fmt: skip
    output = bounded_output(body.get("Output", ""), OUTPUT_MAX_BYTES)
    return body.get("ServiceID") or None, Check(definition, _STATUSES[status], output, 0, 0)


def _kind_of(document: Mapping[str, Any] | None) -> CheckKind:
    """What Consul makes of a definition that has all that its kind needs."""
    if document and document.get("Interval"):
        for field, kind in (("HTTP", CheckKind.HTTP), ("TCP", CheckKind.TCP), ("GRPC", CheckKind.GRPC)):
            if document.get(field):
                return kind
    return CheckKind.EXTERNAL


def _show_definition(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """A definition as readers see it: durations in words first, and nothing that is empty."""
    shown: dict[str, Any] = {}
    for name in _DURATIONS:
        seconds = fields.get(name) or fields.get(f"{name}Duration") or 0.0
        if seconds > 0:
            shown[name] = format_duration(seconds)
    for name, (canonical, _) in _DEFINITION.fields.items():
        if name in {part.lower() for part in _DURATIONS} or name.endswith("duration"):
            continue
        value = fields.get(canonical)
        if value:
            shown[canonical] = format_duration(value) if canonical == "TTL" else value
    return shown or None
