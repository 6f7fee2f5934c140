"""`query/…`: prepared queries."""

import json
import random
import uuid
from collections.abc import Mapping
from typing import Any, cast

from toska_discovery.changes import QUERIES
from toska_discovery.consul.answers import EVERYTHING
from toska_discovery.consul.durations import parse_duration
from toska_discovery.consul.endpoints import Endpoints, index_headers, refuse_other_datacenter
from toska_discovery.consul.gojson import (
    Struct,
    anything,
    boolean,
    decode_json,
    integer,
    string,
    string_map,
    strings,
)
from toska_discovery.consul.ids import refuse_non_uuid, uuid_problem
from toska_discovery.consul.request import ConsulRequest, Header, Refusal, Reply, json_reply
from toska_discovery.errors import QueryRefused, SessionRefused
from toska_discovery.query import PreparedQuery
from toska_discovery.template import Template, check_template

INVALID = "Invalid prepared query"
LOOKUP_FAILED = "failed prepared query lookup"
EXECUTE, EXPLAIN = "/execute", "/explain"
_READ = {"Index": 0, "LastContact": 0, "KnownLeader": True, "ConsistencyLevel": "leader"}

_FAILOVER = Struct.of(NearestN=integer, Datacenters=strings)
_SERVICE = Struct.of(
    Service=string, Failover=lambda value, _: _FAILOVER.decode(value), OnlyPassing=boolean, IgnoreCheckIDs=strings,
    Near=string, Tags=strings, NodeMeta=string_map, ServiceMeta=string_map, Connect=boolean, Namespace=string,
)  # fmt: skip
_TEMPLATE = Struct.of(Type=string, Regexp=string, RemoveEmptyTags=boolean)
_DNS = Struct.of(TTL=string)
_QUERY = Struct.of(
    ID=string, Name=string, Session=string, Token=string, Service=lambda value, _: _SERVICE.decode(value),
    Template=lambda value, _: _TEMPLATE.decode(value), DNS=lambda value, _: _DNS.decode(value),
    CreateIndex=anything, ModifyIndex=anything,
)  # fmt: skip


async def create(here: Endpoints, request: ConsulRequest) -> Reply:
    """`POST query`."""
    refuse_other_datacenter(here, request)
    fields = _QUERY.decode(decode_json(await request.body()))
    if fields.get("ID"):
        raise Refusal(500, "ID must be empty when creating a new prepared query")
    query = _decode(fields, str(uuid.uuid4()))
    await _store(here, query, update=False)
    return json_reply({"ID": query.id})


async def list_all(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET query`."""
    refuse_other_datacenter(here, request)
    state = here.registry.state.coordination
    index = await here.changed(request, (QUERIES,), lambda: state.queries.index)
    views = [_view(query) for _, query in sorted(state.queries.by_id.items())]
    return json_reply(views, *_headers(request, index))


async def read(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET query/:id`, `query/:idOrName/execute` and `query/:idOrName/explain`."""
    refuse_other_datacenter(here, request)
    if request.name.endswith(EXECUTE):
        return _execute(here, request, request.name.removesuffix(EXECUTE))
    if request.name.endswith(EXPLAIN):
        return json_reply(
            {"Query": _view(_resolve(here, request.name.removesuffix(EXPLAIN))), **_READ}, *_headers(request, 1)
        )
    refuse_non_uuid(request.name, LOOKUP_FAILED)
    state = here.registry.state.coordination
    index = await here.changed(request, (QUERIES,), lambda: state.queries.index)
    query = state.queries.find(request.name)
    if query is None:
        raise Refusal(404, "Query not found")
    return json_reply([_view(query)], *_headers(request, index))


async def update(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT query/:id`."""
    _check_id(here, request)
    query = _decode(_QUERY.decode(decode_json(await request.body())), request.name.lower())
    await _store(here, query, update=True)
    return Reply()


async def delete(here: Endpoints, request: ConsulRequest) -> Reply:
    """`DELETE query/:id`."""
    _check_id(here, request)
    try:
        await here.registry.change(lambda state, _: state.drop_query(request.name))
    except QueryRefused as error:
        raise Refusal(500, error.detail) from error
    return Reply()


def _check_id(here: Endpoints, request: ConsulRequest) -> None:
    refuse_other_datacenter(here, request)
    if request.name.endswith((EXECUTE, EXPLAIN)):
        raise Refusal(405, f"method {request.method} not allowed", ((b"allow", b"GET"),))
    refuse_non_uuid(request.name, f"Prepared Query lookup failed: {LOOKUP_FAILED}")


async def _store(here: Endpoints, query: PreparedQuery, *, update: bool) -> None:
    try:
        await here.registry.change(lambda state, _: state.put_query(query, update=update))
    except (QueryRefused, SessionRefused) as error:
        raise Refusal(500, error.detail) from error


def _resolve(here: Endpoints, id_or_name: str) -> PreparedQuery:
    query = here.registry.state.coordination.queries.resolve(id_or_name)
    if query is None:
        raise Refusal(404, "Query not found")
    return query


def _execute(here: Endpoints, request: ConsulRequest, id_or_name: str) -> Reply:
    query = _resolve(here, id_or_name)
    limit = request.query.first("limit")
    if limit and not limit.removeprefix("-").isdecimal():
        raise Refusal(500, f'Bad limit: strconv.Atoi: parsing "{limit}": invalid syntax')
    found: list[dict[str, Any]] = []
    if not query.connect and not request.query.flag("connect"):
        entries = json.loads(here.answers.health_service(query.service, EVERYTHING, passing=False))
        found = [entry for entry in cast("list[dict[str, Any]]", entries) if _is_wanted(query, entry)]
    random.shuffle(found)  # so that whoever takes the first spreads his load
    near = (request.query.first("near") or query.near).lower()
    if near in {"_agent", "_ip", here.node.name.lower()}:
        found.sort(key=lambda entry: entry["Node"]["Node"] != here.node.name)
    if limit and int(limit) > 0:
        found = found[: int(limit)]
    answer = {
        "Service": query.service,
        "Nodes": found,
        "DNS": {"TTL": query.dns_ttl},
        "Datacenter": here.node.datacenter,
        "Failovers": 0,  # there is nowhere to fail over to
        **_READ,
    }
    return json_reply(answer, *_headers(request, 1))


def _is_wanted(query: PreparedQuery, entry: Mapping[str, Any]) -> bool:
    service: Mapping[str, Any] = entry["Service"]
    ignored = query.ignored_checks or ()
    verdicts = {check["Status"] for check in entry["Checks"] if check["CheckID"] not in ignored}
    tags = {tag.lower() for tag in service["Tags"] or ()}
    return (
        "critical" not in verdicts
        and not (query.only_passing and verdicts - {"passing"})
        and all(
            (tag[1:].lower() not in tags) if tag.startswith("!") else (tag.lower() in tags) for tag in query.tags or ()
        )
        and (query.node_meta or {}).items() <= (entry["Node"]["Meta"] or {}).items()
        and (query.service_meta or {}).items() <= (service["Meta"] or {}).items()
    )


def _decode(fields: Mapping[str, Any], query_id: str) -> PreparedQuery:
    service: Mapping[str, Any] = fields.get("Service", {})
    failover: Mapping[str, Any] = service.get("Failover", {})
    template = fields.get("Template", {})
    name, session = fields.get("Name", ""), fields.get("Session", "")
    kind = template.get("Type", "")
    if not name and not session and not kind:
        raise Refusal(500, f"{INVALID}: Must be bound to a session")
    if fields.get("Token") or service.get("Namespace"):
        raise Refusal(400, f"{INVALID}: Token and Namespace are not supported by this registry")
    if not service.get("Service"):
        raise Refusal(500, f"{INVALID}: Must provide a Service name to query")
    if failover.get("NearestN", 0) < 0:
        raise Refusal(500, f"{INVALID}: Bad NearestN '{failover['NearestN']}', must be >= 0")
    query = PreparedQuery(
        id=query_id,
        name=name,
        session=_session(session),
        service=service["Service"],
        nearest=failover.get("NearestN", 0),
        datacenters=failover.get("Datacenters"),
        only_passing=service.get("OnlyPassing", False),
        ignored_checks=service.get("IgnoreCheckIDs"),
        near=service.get("Near", ""),
        tags=service.get("Tags"),
        node_meta=_meta(service.get("NodeMeta")),
        service_meta=_meta(service.get("ServiceMeta")),
        connect=service.get("Connect", False),
        dns_ttl=_dns_ttl(fields.get("DNS", {}).get("TTL", "")),
        template=Template(template.get("Regexp", ""), template.get("RemoveEmptyTags", False)) if kind else None,
    )
    if query.template is not None:
        try:
            check_template(kind, query.template, _texts(query))
        except QueryRefused as error:
            raise Refusal(500, error.detail) from error
    return query


def _texts(query: PreparedQuery) -> dict[str, str]:
    """What a template fills in, by the name of its field."""
    texts = {"Service.Service": query.service, "Service.Near": query.near}
    texts |= {f"Service.Tags[{number}]": tag for number, tag in enumerate(query.tags or ())}
    texts |= {f"Service.Failover.Datacenters[{number}]": name for number, name in enumerate(query.datacenters or ())}
    return texts | {f"Service.NodeMeta[{key}]": value for key, value in (query.node_meta or {}).items()}


def _session(session: str) -> str:
    problem = uuid_problem(session) if session else None
    if problem is not None:
        raise Refusal(500, f"invalid session: index error: {problem}")
    return session.lower()


def _dns_ttl(text: str) -> str:
    if not text:
        return ""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise Refusal(500, f"{INVALID}: Bad DNS TTL '{text}': {error}") from error
    if seconds < 0:
        raise Refusal(500, f"{INVALID}: DNS TTL '{round(seconds * 1e9)}', must be >=0")
    return text


def _meta(pairs: Mapping[str, str] | None) -> Mapping[str, str] | None:
    if pairs is not None and "" in pairs:
        raise Refusal(500, f"{INVALID}: Couldn't load metadata pair ('', '{pairs['']}'): Key cannot be blank")
    return pairs


def _headers(request: ConsulRequest, index: int) -> tuple[Header, ...]:
    return index_headers(index, stale=request.query.has("stale"))


def _view(query: PreparedQuery) -> dict[str, Any]:
    template = query.template
    return {
        "ID": query.id,
        "Name": query.name,
        "Session": query.session,
        "Token": "",
        "Template": {
            "Type": "" if template is None else "name_prefix_match",
            "Regexp": "" if template is None else template.regexp,
            "RemoveEmptyTags": template is not None and template.remove_empty_tags,
        },
        "Service": {
            "Service": query.service,
            "Failover": {"NearestN": query.nearest, "Datacenters": query.datacenters},
            "OnlyPassing": query.only_passing,
            "IgnoreCheckIDs": query.ignored_checks,
            "Near": query.near,
            "Tags": query.tags,
            "NodeMeta": query.node_meta,
            "ServiceMeta": query.service_meta,
            "Connect": query.connect,
        },
        "DNS": {"TTL": query.dns_ttl},
        "CreateIndex": query.create_index,
        "ModifyIndex": query.modify_index,
    }
