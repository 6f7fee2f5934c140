"""`session/…`: sessions."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

from toska_discovery.changes import SESSIONS, node_sessions_topic, session_topic
from toska_discovery.consul.durations import parse_duration
from toska_discovery.consul.endpoints import Endpoints, index_headers, refuse_other_datacenter
from toska_discovery.consul.gojson import Struct, anything, decode_json, mismatch, string, strings
from toska_discovery.consul.ids import refuse_non_uuid
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, json_reply
from toska_discovery.coordination import Coordination
from toska_discovery.errors import SessionRefused
from toska_discovery.node import OWN_NODE, node_key
from toska_discovery.session import (
    DEFAULT_LOCK_DELAY_S,
    MAX_TTL_S,
    MIN_TTL_S,
    SERF_HEALTH,
    Behavior,
    Session,
)

NAME_MAX, CHECKS_MAX = 255, 64
SECONDS_BELOW_NS = 1000
"""A LockDelay that is a smaller number counts seconds, and a larger one nanoseconds."""
LOOKUP_FAILED = "failed session lookup"


def _service_checks(value: Any, field: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise mismatch(value, field, "[]structs.ServiceCheck")
    return tuple(_SERVICE_CHECK.decode(part).get("ID", "") for part in cast("list[Any]", value))


def _lock_delay(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise mismatch(value, field, "time.Duration")
    try:
        seconds = parse_duration(value) if isinstance(value, str) else value / 1e9
    except ValueError as error:
        raise Refusal(400, f"Request decode failed: {error}") from error
    if not isinstance(value, str) and abs(value) < SECONDS_BELOW_NS:
        seconds = float(value)
    if seconds < 0:
        raise Refusal(400, "Request decode failed: LockDelay must not be negative")
    return seconds


_SERVICE_CHECK = Struct.of(ID=string, Namespace=string)
_SESSION = Struct.of(
    ID=string, Name=string, Node=string, Behavior=string, TTL=string, LockDelay=_lock_delay, Checks=strings,
    NodeChecks=strings, ServiceChecks=_service_checks, CreateIndex=anything, ModifyIndex=anything,
    Namespace=string,
)  # fmt: skip


async def create(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT session/create`."""
    refuse_other_datacenter(here, request)
    body = await request.body()
    session = _decode(here, _SESSION.decode(decode_json(body), nulls=True) if body else {})
    try:
        await here.registry.change(lambda state, now: state.create_session(session, now))
    except SessionRefused as error:
        raise Refusal(500, error.detail) from error
    return json_reply({"ID": session.id})


async def destroy(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT session/destroy/:id`; an id that is not there is fine."""
    session_id = _id(here, request)
    await here.registry.change(lambda state, now: state.destroy_session(session_id, now))
    return json_reply(value=True)


async def renew(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT session/renew/:id`."""
    session = here.registry.renew_session(_id(here, request))
    if session is None:
        raise Refusal(404, f"Session id '{request.name}' not found")
    return json_reply([_view(here, session)])


async def info(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET session/info/:id`."""
    session_id = _id(here, request)

    def find(state: Coordination) -> list[Session]:
        session = state.sessions.find(session_id)
        return [] if session is None else [session]

    return await _list(here, request, session_topic(session_id.lower()), find)


async def list_all(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET session/list`."""
    refuse_other_datacenter(here, request)
    return await _list(
        here, request, SESSIONS, lambda state: [item for _, item in sorted(state.sessions.by_id.items())]
    )


async def list_node(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET session/node/:node`."""
    refuse_other_datacenter(here, request)
    if not request.name:
        raise Refusal(400, "Missing node name")
    node = _key(here, request.name)
    return await _list(here, request, node_sessions_topic(node), lambda state: state.sessions.list_on(node))


async def _list(
    here: Endpoints, request: ConsulRequest, topic: str, find: Callable[[Coordination], list[Session]]
) -> Reply:
    state = here.registry.state.coordination
    index = await here.changed(request, (topic,), lambda: state.sessions.index)
    return json_reply([_view(here, session) for session in find(state)], *index_headers(index, catalog=False))


def _id(here: Endpoints, request: ConsulRequest) -> str:
    refuse_other_datacenter(here, request)
    if not request.name:
        raise Refusal(400, "Missing session")
    refuse_non_uuid(request.name, LOOKUP_FAILED)
    return request.name


def _decode(here: Endpoints, fields: Mapping[str, Any]) -> Session:
    """A session from its body, in which a list that is null is something else than none at all."""
    given = {name: value for name, value in fields.items() if value is not None}
    node = given.get("Node", here.node.name)
    if not node:
        raise Refusal(500, "Must provide Node")
    if given.get("Namespace"):
        raise Refusal(400, "Invalid session: Namespace is not supported by this registry")
    checks, node_checks = fields.get("Checks") or (), fields.get("NodeChecks", (SERF_HEALTH,))
    # Of the two ways to name checks, saying none in one of them empties the other.
    if "Checks" in fields and not checks:
        node_checks = ()
    elif not node_checks:
        checks = ()
    ttl = given.get("TTL", "")
    session = Session(
        id=str(uuid.uuid4()),
        node=_key(here, node),
        name=given.get("Name", ""),
        ttl=ttl,
        ttl_s=_ttl(ttl),
        lock_delay_s=given.get("LockDelay", DEFAULT_LOCK_DELAY_S),
        behavior=_behavior(given.get("Behavior", "")),
        checks=checks,
        node_checks=node_checks,
        service_checks=fields.get("ServiceChecks"),
    )
    if len(session.name) > NAME_MAX:
        raise Refusal(400, f"Invalid session: Name is too long (limit: {NAME_MAX} characters)")
    if len(session.check_ids) > CHECKS_MAX:
        raise Refusal(400, f"Invalid session: it cannot be bound to more than {CHECKS_MAX} checks")
    return session


def _ttl(text: str) -> float:
    if not text:
        return 0.0
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise Refusal(500, f"Session TTL '{text}' invalid: {error}") from error
    if seconds and not MIN_TTL_S <= seconds <= MAX_TTL_S:
        raise Refusal(500, f"Invalid Session TTL '{round(seconds * 1e9)}', must be between [10s=24h0m0s]")
    return seconds


def _behavior(text: str) -> Behavior:
    try:
        return Behavior(text or Behavior.RELEASE)
    except ValueError as error:
        raise Refusal(500, f"Invalid Behavior setting '{text}'") from error


def _key(here: Endpoints, node: str) -> str:
    """What the registry calls a node of that name."""
    return OWN_NODE if node.lower() == here.node.name.lower() else node_key(node)


def _view(here: Endpoints, session: Session) -> dict[str, Any]:
    services = session.service_checks
    view: dict[str, Any] = {
        "ID": session.id,
        "Name": session.name,
        "Node": here.registry.state.nodes[session.node].definition.name,
        "LockDelay": round(session.lock_delay_s * 1e9),
        "Behavior": session.behavior.value,
        "TTL": session.ttl,
        "NodeChecks": session.node_checks,
        "ServiceChecks": None if services is None else [{"ID": check_id, "Namespace": ""} for check_id in services],
    }
    if session.checks and session.checks != (SERF_HEALTH,):
        view["Checks"] = session.checks
    return {**view, "CreateIndex": session.create_index, "ModifyIndex": session.modify_index}
