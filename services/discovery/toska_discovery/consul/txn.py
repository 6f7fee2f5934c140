"""`txn`: transactions."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, cast

from toska_discovery.catalog_txn import CatalogResult, CheckResult, NodeOperation, NodeResult, ServiceResult
from toska_discovery.consul.decode_txn import CHECK, NODE, SERVICE, check_operation, node_operation, service_operation
from toska_discovery.consul.endpoints import Endpoints, refuse_other_datacenter
from toska_discovery.consul.gojson import Struct, decode_json, integer, mismatch, string
from toska_discovery.consul.kv import KEY_MAX, entry_view
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, json_reply
from toska_discovery.consul.views import check_body, health_service, node_body
from toska_discovery.node import node_key
from toska_discovery.txn import KeyOperation, KeyResult, Operation, Outcome

MAX_OPERATIONS = 64
DECODING, PARSING = "Request decode failed: ", "Failed to parse body: "


def _base64(value: Any, field: str) -> bytes:
    if not isinstance(value, str):
        raise mismatch(value, field, "[]uint8")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        at = next((place for place, letter in enumerate(value) if not letter.isalnum() and letter not in "+/"), 0)
        raise Refusal(400, f"{DECODING}illegal base64 data at input byte {at}") from error


_KEY = Struct.of(Verb=string, Key=string, Value=_base64, Flags=integer, Index=integer, Session=string, Namespace=string)
_OPERATION = Struct.of(KV=_KEY.at, Node=NODE.at, Service=SERVICE.at, Check=CHECK.at)


async def apply(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT txn`: with nothing to write it is a read, which says how consistent it was."""
    operations = _decode(await request.body(), here)
    refuse_other_datacenter(here, request)
    writes = any(operation.writes for operation in operations)
    if not writes and request.query.has("stale") and request.query.has("consistent"):
        raise Refusal(400, "Cannot specify ?stale with ?consistent, conflicting semantics.")
    outcome = await here.registry.transact(operations, here.answers.inventory)
    status = 409 if outcome.problems else 200
    if writes:
        return json_reply(_view(outcome, here.node.datacenter), status=status)
    consistency = {"Index": 0, "LastContact": 0, "KnownLeader": True, "ConsistencyLevel": ""}
    headers = ((b"x-consul-knownleader", b"true"), (b"x-consul-lastcontact", b"0"))
    return json_reply({**_view(outcome, here.node.datacenter), **consistency}, *headers, status=status)


def _decode(body: bytes, here: Endpoints) -> list[Operation]:
    try:
        value = decode_json(body)
        if value is None:
            return []
        if not isinstance(value, list):
            raise mismatch(value, "", "api.TxnOps")
        parts = [_OPERATION.decode(part) for part in cast("list[Any]", value)]
    except Refusal as error:
        raise Refusal(400, PARSING + error.text.removeprefix(DECODING)) from error
    if len(parts) > MAX_OPERATIONS:
        raise Refusal(413, f"Transaction contains too many operations ({len(parts)} > {MAX_OPERATIONS})")
    operations: list[Operation] = []
    for part in parts:
        if part:
            operations.append(_operation(part, operations, here))
    return operations


def _operation(part: Mapping[str, Any], before: Sequence[Operation], here: Endpoints) -> Operation:
    """The first of what a part is about, as Consul takes it."""
    if "KV" in part:
        return _key_operation(part["KV"])
    if "Node" in part:
        return node_operation(part["Node"], here.rules, here.node.datacenter)
    if "Service" in part:
        return service_operation(part["Service"], _address(part["Service"].get("Node", ""), before, here), here.rules)
    return check_operation(part["Check"])


def _address(node: str, before: Sequence[Operation], here: Endpoints) -> str:
    """The address of a node, as the operations before may have written it."""
    for operation in reversed(before):
        if (
            isinstance(operation, NodeOperation)
            and operation.writes
            and node_key(operation.node.name) == node_key(node)
        ):
            return operation.node.address
    key = here.answers.inventory.find_node(node)
    return "" if key is None else here.answers.inventory.node(key).definition.address


def _key_operation(fields: Mapping[str, Any]) -> KeyOperation:
    if fields.get("Namespace"):
        raise Refusal(400, f"{PARSING}Namespace is not supported by this registry")
    key, flags, index = fields.get("Key", ""), fields.get("Flags", 0), fields.get("Index", 0)
    if len(key) > KEY_MAX:
        raise Refusal(400, f"{PARSING}Key is too long (limit: {KEY_MAX} characters)")
    for name, number in (("Flags", flags), ("Index", index)):
        if not 0 <= number < 2**64:
            raise Refusal(400, f"{PARSING}json: cannot unmarshal number {number} into {name} of type uint64")
    verb, value, session = fields.get("Verb", ""), fields.get("Value", b""), fields.get("Session", "")
    return KeyOperation(verb, key, value, flags, index, session)


def _view(outcome: Outcome, datacenter: str) -> dict[str, Any]:
    if outcome.problems:
        errors = [{"OpIndex": problem.operation, "What": problem.what} for problem in outcome.problems]
        return {"Results": None, "Errors": errors}
    return {"Results": [_result(result, datacenter) for result in outcome.results], "Errors": None}


def _result(result: KeyResult | CatalogResult, datacenter: str) -> dict[str, Any]:
    match result:
        case KeyResult():
            return {"KV": entry_view(result.entry, result.entry.value if result.with_value else b"")}
        case NodeResult():
            return {"Node": node_body(result.node, datacenter)}
        case ServiceResult():
            body = health_service(result.instance)
            return {"Service": {**body, "Tags": body["Tags"] or None}}
        case CheckResult():
            body = check_body(result.node, result.instance, result.check)
            return {"Check": {**body, "ServiceTags": body["ServiceTags"] or None}}
