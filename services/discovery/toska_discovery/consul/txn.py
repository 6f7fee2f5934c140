"""`txn`: transactions."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, cast

from toska_discovery.changes import Changes
from toska_discovery.consul.endpoints import Endpoints, refuse_other_datacenter
from toska_discovery.consul.gojson import Struct, anything, decode_json, integer, mismatch, string
from toska_discovery.consul.kv import KEY_MAX, entry_view
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, json_reply
from toska_discovery.coordination import Coordination
from toska_discovery.txn import KeyOperation, Outcome, run

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
_OPERATION = Struct.of(KV=lambda value, _: _KEY.decode(value), Node=anything, Service=anything, Check=anything)


async def apply(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT txn`: with nothing to write it is a read, which says how consistent it was."""
    operations = _decode(await request.body())
    refuse_other_datacenter(here, request)
    writes = any(operation.writes for operation in operations)
    if not writes and request.query.has("stale") and request.query.has("consistent"):
        raise Refusal(400, "Cannot specify ?stale with ?consistent, conflicting semantics.")
    outcome = await _run(here, operations)
    status = 409 if outcome.problems else 200
    if writes:
        return json_reply(_view(outcome), status=status)
    consistency = {"Index": 0, "LastContact": 0, "KnownLeader": True, "ConsistencyLevel": ""}
    headers = ((b"x-consul-knownleader", b"true"), (b"x-consul-lastcontact", b"0"))
    return json_reply({**_view(outcome), **consistency}, *headers, status=status)


async def _run(here: Endpoints, operations: Sequence[KeyOperation]) -> Outcome:
    outcomes: list[Outcome] = []

    def event(state: Coordination, now: float) -> Changes:
        outcomes.append(run(operations, state, now))
        return outcomes[0].changes

    await here.registry.change(event)
    return outcomes[0]


def _decode(body: bytes) -> list[KeyOperation]:
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
    return [_operation(part) for part in parts if part]


def _operation(part: Mapping[str, Any]) -> KeyOperation:
    for kind in ("Node", "Service", "Check"):
        if kind in part and "KV" not in part:
            raise Refusal(400, f"{PARSING}operations on a {kind} are not supported by this registry")
    fields = part["KV"]
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


def _view(outcome: Outcome) -> dict[str, Any]:
    if outcome.problems:
        errors = [{"OpIndex": problem.operation, "What": problem.what} for problem in outcome.problems]
        return {"Results": None, "Errors": errors}
    results = [
        {"KV": entry_view(result.entry, result.entry.value if result.with_value else b"")} for result in outcome.results
    ]
    return {"Results": results, "Errors": None}
