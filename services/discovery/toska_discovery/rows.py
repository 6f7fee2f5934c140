"""Instances, nodes, keys and sessions as the columns of the state file.

Fields only join: a row of an older version stays readable.
"""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from toska_common.contracts.discovery import Health

from toska_discovery.check import OUTPUT_MAX_BYTES, Check, CheckDefinition, CheckKind, Probe
from toska_discovery.instance import Instance, ServiceDefinition
from toska_discovery.kv import Entry
from toska_discovery.node import OWN_NODE, Node, NodeDefinition
from toska_discovery.query import PreparedQuery
from toska_discovery.session import Behavior, Session
from toska_discovery.template import Template


def entry_columns(entry: Entry) -> tuple[str, bytes]:
    """The columns `body` and `value` of a key."""
    body = {
        "flags": entry.flags,
        "create_index": entry.create_index,
        "modify_index": entry.modify_index,
        "lock_index": entry.lock_index,
        "session": entry.session,
    }
    return json.dumps(body), entry.value


def read_entry(name: str, body: str, value: bytes) -> Entry:
    """A key from its row."""
    return Entry(name, value, **json.loads(body))


def session_column(session: Session) -> str:
    """The column `body` of a session."""
    return json.dumps(asdict(session))


def read_session(column: str) -> Session:
    """A session from its column."""
    body: dict[str, Any] = json.loads(column)
    for name in ("checks", "node_checks", "service_checks"):
        body[name] = None if body[name] is None else tuple(body[name])
    behavior = Behavior(body.pop("behavior"))
    return Session(**body, behavior=behavior)


def query_column(query: PreparedQuery) -> str:
    """The column `body` of a prepared query."""
    return json.dumps(asdict(query))


def read_query(column: str) -> PreparedQuery:
    """A prepared query from its column."""
    body: dict[str, Any] = json.loads(column)
    for name in ("datacenters", "ignored_checks", "tags"):
        body[name] = None if body[name] is None else tuple(body[name])
    template = body.pop("template")
    return PreparedQuery(**body, template=None if template is None else Template(**template))


def instance_column(instance: Instance) -> str:
    """The column `body` of an instance."""
    service = instance.service
    body = {
        "service": {
            "id": service.id,
            "name": service.name,
            "address": service.address,
            "port": service.port,
            "tags": service.tags,
            "meta": dict(service.meta),
            "tagged_addresses": dict(service.tagged_addresses),
            "weights": service.weights,
            "enable_tag_override": service.enable_tag_override,
        },
        "checks": [_write_check(check) for check in instance.checks.values()],
        "registered_at": instance.registered_at.isoformat(),
        "create_index": instance.create_index,
        "modify_index": instance.modify_index,
        "node": instance.node,
    }
    return json.dumps(body)


def _write_check(check: Check) -> dict[str, Any]:
    definition = check.definition
    return {
        "id": definition.id,
        "name": definition.name,
        "ttl_s": definition.ttl_s,
        "notes": definition.notes,
        "removal_after_s": definition.removal_after_s,
        "kind": definition.kind.value,
        "probe": None if definition.probe is None else asdict(definition.probe),
        "output_max_bytes": definition.output_max_bytes,
        "document": definition.document,
        "status": check.status.value,
        "output": check.output,
        "create_index": check.create_index,
        "modify_index": check.modify_index,
    }


def read_instance(column: str) -> Instance:
    """An instance from its column."""
    body: dict[str, Any] = json.loads(column)
    service: dict[str, Any] = body["service"]
    for name in ("tags", "weights"):
        service[name] = tuple(service[name])
    service["tagged_addresses"] = {key: tuple(value) for key, value in service["tagged_addresses"].items()}
    return Instance(
        service=ServiceDefinition(**service),
        checks={check["id"]: _read_check(check) for check in body["checks"]},
        registered_at=datetime.fromisoformat(body["registered_at"]),
        create_index=body["create_index"],
        modify_index=body["modify_index"],
        node=body.get("node", OWN_NODE),
    )


def node_column(node: Node) -> str:
    """The column `body` of a node."""
    body = {
        "definition": asdict(node.definition),
        "create_index": node.create_index,
        "modify_index": node.modify_index,
        "checks": [_write_check(check) for check in node.checks.values()],
        "checks_index": node.checks_index,
    }
    return json.dumps(body)


def read_node(column: str) -> Node:
    """A node from its column."""
    body: dict[str, Any] = json.loads(column)
    return Node(
        definition=NodeDefinition(**body["definition"]),
        create_index=body["create_index"],
        modify_index=body["modify_index"],
        checks={check["id"]: _read_check(check) for check in body["checks"]},
        checks_index=body["checks_index"],
    )


def _read_check(body: dict[str, Any]) -> Check:
    return Check(
        definition=CheckDefinition(
            id=body["id"],
            name=body["name"],
            ttl_s=body["ttl_s"],
            notes=body["notes"],
            removal_after_s=body["removal_after_s"],
            kind=CheckKind(body.get("kind", CheckKind.TTL)),
            probe=_read_probe(body.get("probe")),
            output_max_bytes=body.get("output_max_bytes", OUTPUT_MAX_BYTES),
            document=body.get("document"),
        ),
        status=Health(body["status"]),
        output=body["output"],
        create_index=body["create_index"],
        modify_index=body["modify_index"],
    )


def _read_probe(body: dict[str, Any] | None) -> Probe | None:
    if body is None:
        return None
    body["header"] = {name: tuple(values) for name, values in body["header"].items()}
    body["args"] = tuple(body["args"])
    return Probe(**body)
