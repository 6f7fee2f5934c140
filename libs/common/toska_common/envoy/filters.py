"""The HTTP filters of every listener, in the order in which requests pass them, and what each route asks of them."""

from typing import Final

from toska_common.contracts.routing import Route, RouteTable
from toska_common.envoy import (
    access,
    compression,
    cors,
    credentials,
    fallbacks,
    faults,
    limits,
    sessions,
    splits,
    tokens,
)
from toska_common.envoy.options import Options
from toska_common.envoy.words import Json, extension, typed

_BUFFER: Final = "toska.body_limit"
_BUFFER_KIND: Final = ".filters.http.buffer.v3."
_MOST: Final = 2**32 - 1


def http_filters(table: RouteTable, options: Options) -> list[Json]:
    """All of them; those that depend on the routes are there only where a route asks for them."""
    used = [route.policies for route in table.routes]
    chain: list[Json] = []
    if any(policies.ip for policies in used):
        chain.append(access.rbac_filter(access.BY_ADDRESS))
    if any(policies.cors for policies in used):
        chain.append(cors.cors_filter())
    if tokens.has_tokens(table):
        chain += [tokens.jwt_filter(table, options), access.rbac_filter(access.BY_GRANTS)]
    if any(policies.rate_limit for policies in used):
        chain += [limits.told_filter(), limits.rate_limit_filter()]
    if any(splits.find_sticky(route) for route in table.routes):
        chain.append(splits.split_filter())
    if any(policies.fault for policies in used):
        chain.append(faults.fault_filter())
    if any(_body_limit(route, table) for route in table.routes):
        chain.append({"name": _BUFFER, "disabled": True, "typed_config": _buffer(_MOST)})
    chain.append(extension("toska.grpc_web", ".filters.http.grpc_web.v3.GrpcWeb"))
    if any(fallbacks.fixed_answer(policies) for policies in used):
        chain.append(fallbacks.fallback_filter())
    if any(policies.compress for policies in used):
        chain += [compression.weakening(), *compression.filters_of(table), compression.keeping()]
    if any(sessions.affinity_of(route, table) for route in table.routes):
        chain.append(sessions.session_filter())
    router = extension("toska.router", ".filters.http.router.v3.Router", suppress_envoy_headers=True)
    # The last one: the others may go by what users' clusters do not get to see.
    return [*chain, credentials.credentials_filter(), router]


def of_route(route: Route, table: RouteTable, options: Options) -> dict[str, Json]:
    """What one route asks of them."""
    _ = options
    policies, asked = route.policies, dict[str, Json]()
    if policies.ip is not None:
        asked[access.BY_ADDRESS] = access.by_address(policies.ip)
    if policies.cors is not None:
        asked[cors.NAME] = cors.policy(policies.cors)
    if policies.auth is not None:
        asked[access.JWT_FILTER] = tokens.of_route(policies.auth)
        asked[access.BY_GRANTS] = access.by_token(policies.auth, tokens.provider_name(policies.auth.jwt))
    if policies.rate_limit:
        asked[limits.TOLD] = limits.told(route.name, policies.rate_limit)
        asked[limits.NAME] = limits.rate_limits(route.name, policies.rate_limit, policies.auth)
    if most := _body_limit(route, table):
        asked[_BUFFER] = typed(f"{_BUFFER_KIND}BufferPerRoute", buffer={"max_request_bytes": most})
    if (answer := fallbacks.fixed_answer(policies)) is not None:
        asked[fallbacks.NAME] = fallbacks.of_route(*answer)
    if policies.compress is not None:
        asked |= compression.of_route(policies.compress)
    affinity = sessions.affinity_of(route, table)
    if affinity is not None:
        asked[sessions.NAME] = sessions.of_route(affinity)
    return asked


def _body_limit(route: Route, table: RouteTable) -> int:
    """How long a request's body may be; 0 is unbounded."""
    own, common = route.policies.body.max_bytes, table.server.limits.body_bytes
    return min(own or common, common or own)


def _buffer(most: int) -> Json:
    return typed(f"{_BUFFER_KIND}Buffer", max_request_bytes=most)
