"""The parts of a transaction that are about nodes, services and checks, read to the domain's values.

A value of the wrong type or an unknown field fails the body as a whole. What cannot be right is the flaw of its
operation, so that the answer says which one that is; writes alone have any, as in Consul.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from toska_common.contracts.discovery import Health

from toska_discovery.catalog_txn import CheckOperation, NodeOperation, ServiceOperation
from toska_discovery.check import Check, CheckDefinition, CheckKind
from toska_discovery.consul import decode_catalog
from toska_discovery.consul.gojson import Struct, integer, string, string_map
from toska_discovery.consul.request import Refusal
from toska_discovery.consul.rules import RegistrationRules
from toska_discovery.consul.views import CONSUL
from toska_discovery.instance import ServiceDefinition
from toska_discovery.node import NodeDefinition

_NODE = Struct.exact(
    ID=string, Node=string, Address=string, Datacenter=string, TaggedAddresses=string_map, Meta=string_map,
    CreateIndex=integer, ModifyIndex=integer,
)  # fmt: skip
# What Consul's own client sends along, in the place where it reads services.
_SERVICE = Struct({**decode_catalog.SERVICE.fields, **Struct.exact(ContentHash=string, Datacenter=string).fields})
_WEIGHTLESS: tuple[Any, ...] = ({}, {"Passing": 0, "Warning": 0})

NODE = Struct.exact(Verb=string, Node=_NODE.at)
SERVICE = Struct.exact(Verb=string, Node=string, Service=_SERVICE.at)
CHECK = Struct.exact(Verb=string, Check=decode_catalog.CHECK.at)


def node_operation(fields: Mapping[str, Any], rules: RegistrationRules, datacenter: str) -> NodeOperation:
    """Read `Node`."""
    verb, body = fields.get("Verb", ""), fields.get("Node", {})
    index = body.get("ModifyIndex", 0)
    bare = NodeDefinition(body.get("Node", ""), "", body.get("ID", ""))
    if verb == "get":
        return NodeOperation(verb, bare, index=index)
    renamed = {"NodeMeta" if name == "Meta" else name: value for name, value in body.items()}
    try:
        if body.get("Datacenter", "") not in {"", datacenter}:
            raise Refusal(400, "No path to datacenter")
        node = decode_catalog.decode_node({**renamed, "SkipNodeUpdate": True}, rules)
    except Refusal as error:
        return NodeOperation(verb, bare, index=index, flaw=error.text)
    return NodeOperation(verb, node, index=index)


def service_operation(fields: Mapping[str, Any], at: str, rules: RegistrationRules) -> ServiceOperation:
    """Read `Service`; without an address it has that of its node, `at`."""
    verb, node, body = fields.get("Verb", ""), fields.get("Node", ""), fields.get("Service", {})
    index, own_id, name = body.get("ModifyIndex", 0), body.get("ID", ""), body.get("Service", "")
    bare = ServiceDefinition(own_id if verb == "get" else own_id or name, name)
    if verb == "get":
        return ServiceOperation(verb, node, bare, index=index)
    if not own_id and not name:
        return ServiceOperation(verb, node, bare, index=index, flaw="Must provide service name")
    # Consul's own client sends weights of nothing for none.
    given = {field: value for field, value in body.items() if field != "Weights" or value not in _WEIGHTLESS}
    try:
        service = decode_catalog.decode_service(given, at, rules)
    except Refusal as error:
        return ServiceOperation(verb, node, bare, index=index, flaw=error.text)
    if name == CONSUL:
        return ServiceOperation(verb, node, bare, index=index, flaw=f"Invalid service: {CONSUL} is the registry's own")
    return ServiceOperation(verb, node, service or bare, index=index)


def check_operation(fields: Mapping[str, Any]) -> CheckOperation:
    """Read `Check`."""
    verb, body = fields.get("Verb", ""), fields.get("Check", {})
    node, index = body.get("Node", ""), body.get("ModifyIndex", 0)
    own_id = body.get("CheckID", "") if verb == "get" else body.get("CheckID") or body.get("Name", "")
    bare = Check(CheckDefinition(own_id, ""), Health.CRITICAL, "", 0, 0)
    if verb == "get":
        return CheckOperation(verb, node, bare, index=index)
    try:
        owner, check = decode_catalog.decode_check(body, node)
    except Refusal as error:
        return CheckOperation(verb, node, bare, index=index, flaw=error.text)
    # Unlike `catalog/register`, a transaction makes no kind of the definition.
    kind = CheckKind(body.get("Type", ""))
    return CheckOperation(
        verb, node, replace(check, definition=replace(check.definition, kind=kind)), owner, index=index
    )
