"""CORS: who may ask, and preflights (the Fetch standard)."""

import re
from collections.abc import Iterator

from toska_common.contracts.routing import Cors, Route
from toska_common.contracts.routing.browsers import ANY
from toska_common.envoy.matching import match_of
from toska_common.envoy.replies import problem_route
from toska_common.envoy.words import Json, fitting, header, literal, typed

NAME = "toska.cors"
OF_UPSTREAMS = (
    "access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods",
    "access-control-allow-origin", "access-control-expose-headers", "access-control-max-age",
)  # fmt: skip
"""What upstreams say of it is replaced."""
_KIND = ".filters.http.cors.v3."
_ASKED_METHOD = "access-control-request-method"
_SAFE = ("GET", "HEAD", "POST")


def cors_filter() -> Json:
    """The filter, which does nothing for routes without a policy."""
    return {"name": NAME, "typed_config": typed(f"{_KIND}Cors")}


def policy(cors: Cors) -> Json:
    """Of a route."""
    found: Json = typed(
        f"{_KIND}CorsPolicy",
        allow_origin_string_match=[_origin(origin) for origin in cors.allow_origins],
        allow_methods=", ".join(cors.allow_methods),
        max_age=str(int(cors.max_age.total_seconds())),
        allow_credentials=cors.allow_credentials,
        allow_private_network_access=cors.allow_private_network,
    )
    if cors.allow_headers:
        found["allow_headers"] = ", ".join(cors.allow_headers)
    if cors.expose_headers:
        found["expose_headers"] = ", ".join(cors.expose_headers)
    return found


def preflights(route: Route) -> Iterator[Json]:
    """Routes for preflights: one answers those that are allowed, and one refuses the others."""
    cors = route.policies.cors
    if cors is None:
        return
    bare = route.match.model_copy(update={"methods": (), "headers": {}})
    asked = [fitting(_ASKED_METHOD, "|".join(route.match.methods))] if route.match.methods else []
    preflight: Json = {"name": _ASKED_METHOD, "present_match": True}
    allowed = [{"name": "origin", "string_match": _any_of(cors)}, *_allowed_methods(cors), *_allowed_headers(cors)]
    yield {
        "name": route.name,
        "match": match_of(bare, methods=("OPTIONS",), headers=[preflight, *asked, *allowed]),
        "direct_response": {"status": 204},
        "response_headers_to_add": [*_granted(cors)],
    }
    yield {
        "name": problem_route(route.name, "cors-denied"),
        "match": match_of(bare, methods=("OPTIONS",), headers=[{"name": "origin", "present_match": True}, preflight,
                                                                *asked]),
        "direct_response": {"status": 403},
    }  # fmt: skip


def _granted(cors: Cors) -> Iterator[Json]:
    anybody = ANY in cors.allow_origins
    yield header("access-control-allow-origin", ANY if anybody else "%REQ(ORIGIN)%")
    yield header("access-control-allow-methods", ", ".join(cors.allow_methods))
    yield header("access-control-max-age", str(int(cors.max_age.total_seconds())))
    if cors.allow_headers:
        yield header("access-control-allow-headers", literal(", ".join(cors.allow_headers)))
    if cors.allow_credentials:
        yield header("access-control-allow-credentials", "true")
    if cors.allow_private_network:
        yield header("access-control-allow-private-network", "true")
    if not anybody:
        yield header("vary", "origin")


def _allowed_methods(cors: Cors) -> Iterator[Json]:
    if ANY not in cors.allow_methods:
        yield fitting(_ASKED_METHOD, "|".join(dict.fromkeys((*_SAFE, *cors.allow_methods))))


def _allowed_headers(cors: Cors) -> Iterator[Json]:
    if ANY in cors.allow_headers:
        return
    known = "|".join(re.escape(name) for name in cors.allow_headers) or "$."
    matcher = fitting("access-control-request-headers", rf"(?i)\s*((({known})\s*,\s*)*({known}))?\s*")
    yield {**matcher, "treat_missing_header_as_empty": True}


def _any_of(cors: Cors) -> Json:
    return {"safe_regex": {"regex": "|".join(_regex(origin) for origin in cors.allow_origins)}}


def _regex(origin: str) -> str:
    if origin == ANY:
        return ".*"
    return re.escape(origin).replace(r"\*\.", r"([a-z0-9_-]+\.)+")


def _origin(origin: str) -> Json:
    if origin == ANY or "*" in origin:
        return {"safe_regex": {"regex": _regex(origin)}}
    return {"exact": origin}
