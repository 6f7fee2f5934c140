"""From a path to its handler: the ASGI app of the Consul port.

A dictionary of endpoints instead of a framework's router: Starlette's costs 30 µs a request and FastAPI's 150 µs, which
is more than everything else that a lookup does.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

import structlog
from starlette.types import Message, Receive, Scope, Send
from toska_common.contracts.discovery import Health
from toska_common.errors import MeshError

from toska_discovery.consul import (
    acl,
    agent,
    agent_health,
    agent_metrics,
    catalog,
    catalog_writes,
    coordination,
    kv,
    maintenance,
    operating,
    selectors,
)
from toska_discovery.consul.access import ConsulPolicy
from toska_discovery.consul.endpoints import Endpoints, Handler
from toska_discovery.consul.filtering import filterable
from toska_discovery.consul.request import (
    CallerGone,
    ConsulRequest,
    Header,
    Refusal,
    Reply,
    parse_query,
    pretty,
    text_reply,
)

log = structlog.get_logger(__name__)

Methods = Mapping[str, Handler]

EXACT: Mapping[str, Methods] = {
    "agent/self": {"GET": agent.get_self},
    "agent/members": {"GET": agent.list_members},
    "agent/maintenance": {"PUT": maintenance.node},
    "agent/metrics": {"GET": agent_metrics.get_metrics},
    "agent/check/register": {"PUT": agent.register_check},
    "agent/services": {"GET": filterable(agent.list_services, selectors.SERVICES)},
    "agent/checks": {"GET": filterable(agent.list_checks, selectors.CHECKS, prefix="")},
    "agent/service/register": {"PUT": agent.register_service},
    "catalog/register": {"PUT": catalog_writes.register},
    "catalog/deregister": {"PUT": catalog_writes.deregister},
    "catalog/datacenters": {"GET": catalog.list_datacenters},
    "catalog/nodes": {"GET": filterable(catalog.list_nodes, selectors.NODES)},
    "catalog/services": {"GET": catalog.list_services},
    "status/leader": {"GET": agent.get_leader},
    "status/peers": {"GET": agent.list_peers},
    **coordination.EXACT,
    **acl.EXACT,
    **operating.EXACT,
}
"""Endpoints without a name in their path."""

NAMED: Mapping[str, Methods] = {
    "agent/service": {"GET": agent.get_service},
    "agent/service/maintenance": {"PUT": maintenance.service},
    "agent/health/service/id": {"GET": agent_health.by_id},
    "agent/health/service/name": {"GET": agent_health.by_name},
    "agent/service/deregister": {"PUT": agent.deregister_service},
    "agent/check/pass": {"PUT": agent.report(Health.PASSING)},
    "agent/check/warn": {"PUT": agent.report(Health.WARNING)},
    "agent/check/fail": {"PUT": agent.report(Health.CRITICAL)},
    "agent/check/update": {"PUT": agent.update_check},
    "agent/check/deregister": {"PUT": agent.deregister_check},
    "catalog/service": {"GET": filterable(catalog.list_catalog_service, selectors.CATALOG_SERVICES)},
    "health/service": {"GET": filterable(catalog.list_health_service, selectors.HEALTH_SERVICES)},
    "catalog/connect": {"GET": filterable(catalog.list_connect, selectors.CATALOG_SERVICES)},
    "catalog/node": {"GET": filterable(catalog.get_node, selectors.SERVICES, below="Services")},
    "catalog/node-services": {"GET": filterable(catalog.list_node_services, selectors.SERVICES, below="Services")},
    "health/connect": {"GET": filterable(catalog.list_connect, selectors.HEALTH_SERVICES)},
    "health/node": {"GET": filterable(catalog.list_health_node, selectors.CHECKS)},
    "health/checks": {"GET": filterable(catalog.list_health_checks, selectors.CHECKS)},
    "health/state": {"GET": filterable(catalog.list_health_state, selectors.CHECKS)},
    **coordination.NAMED,
    **acl.NAMED,
    **operating.NAMED,
    "kv": {"GET": kv.read, "PUT": kv.put, "DELETE": kv.delete},
}
"""Endpoints whose path ends in a name, which may have slashes of its own."""


AT_ONCE: Mapping[str, frozenset[str]] = {
    "GET": frozenset({"health/service", "health/checks", "health/state", "catalog/service", "catalog/services", "kv"}),
    "PUT": frozenset({"agent/check/pass", "agent/check/warn", "agent/check/fail"}),
}
"""Endpoints that wait for nothing without a body and without `index`; asking twice does what asking once does."""


class ConsulApi:
    """Serves Consul's HTTP API while it has `endpoints`; its service sets them when the registry is open.

    Attributes:
        endpoints: What the handlers are given; none before the registry is open.
        requests: Requests answered, by endpoint and status.
    """

    def __init__(self, policy: ConsulPolicy) -> None:
        self.endpoints: Endpoints | None = None
        self.requests: dict[tuple[str, int], int] = {}
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"]
        endpoint, methods, name = find_endpoint(path)
        query, headers = parse_query(scope["query_string"]), dict(scope["headers"])
        request = ConsulRequest(scope["method"], name, query, headers, receive)
        try:
            reply = await self._answer(methods, path, request)
        except Refusal as error:
            reply = text_reply(error.status, error.text, *error.headers)
        except MeshError as error:
            log.error("request_failed", endpoint=endpoint, code=error.code, detail=error.detail)
            reply = text_reply(500, f"rpc error making call: {error.detail}")
        except CallerGone:
            return
        except Exception:
            log.exception("request_crashed", endpoint=endpoint)
            reply = text_reply(500, "rpc error making call: internal error")
        self._count(endpoint, reply)
        await reply.send(send)

    def answer_at_once(self, method: str, path: str, raw_query: bytes, headers: dict[bytes, bytes]) -> Reply | None:
        """Answer a request without a body outside of any task, if it succeeds and need not wait.

        `None` says to ask again in the long way, which also tells what is wrong with it.
        """
        endpoint, methods, name = find_endpoint(path)
        if endpoint not in AT_ONCE[method]:
            return None
        query = parse_query(raw_query)
        if query.has("index"):
            return None
        answering = self._answer(methods, path, ConsulRequest(method, name, query, headers, _no_body))
        try:
            answering.send(None)
        except StopIteration as done:
            reply: Reply = done.value
        except Exception:  # noqa: BLE001 - the long way meets it again, and renders and logs it
            return None
        else:
            answering.close()
            return None
        self._count(endpoint, reply)
        return reply

    def _count(self, endpoint: str, reply: Reply) -> None:
        key = (endpoint, reply.status)
        self.requests[key] = self.requests.get(key, 0) + 1

    async def _answer(self, methods: Methods, path: str, request: ConsulRequest) -> Reply:
        method, query = request.method, request.query
        request.access = self._policy.check(method, path, query, request.headers)
        if "//" in path:
            location = (b"location", quote(re.sub("/{2,}", "/", path)).encode())
            return Reply(status=301, headers=(location,))
        if not methods:
            return Reply(status=404)
        handler = methods.get(method)
        if handler is None:
            allow = (b"allow", ",".join(["OPTIONS", *methods]).encode())
            return Reply(headers=(allow,)) if method == "OPTIONS" else _not_allowed(method, allow)
        if self.endpoints is None:
            raise Refusal(503, "The registry is not open")
        reply = await handler(self.endpoints, request)
        return pretty(reply) if query.has("pretty") else reply


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _not_allowed(method: str, allow: Header) -> Reply:
    return text_reply(405, f"method {method} not allowed", allow)


@lru_cache(maxsize=4096)
def find_endpoint(path: str) -> tuple[str, Methods, str]:
    """The endpoint of a path, its handlers by method, and the name that the path ends in; no handlers if unknown."""
    if path.startswith("/v1/"):
        rest = path[4:]
        methods = EXACT.get(rest)
        if methods is not None:
            return rest, methods, ""
        parts = rest.split("/")
        for count in (4, 3, 2, 1):
            methods = NAMED.get("/".join(parts[:count])) if len(parts) > count else None
            if methods is not None:
                return "/".join(parts[:count]), methods, "/".join(parts[count:])
    return "(unmatched)", {}, ""
