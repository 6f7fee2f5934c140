"""Clients that come back to the endpoint that first served them, by a cookie that Envoy makes."""

from typing import Final

from toska_common.contracts.routing import AffinityCookie, Route, RouteTable
from toska_common.envoy.words import Json, extension, seconds, typed

NAME: Final = "toska.affinity"
_KIND: Final = ".filters.http.stateful_session.v3."
_STATE: Final = ".http.stateful_session.cookie.v3.CookieBasedSessionState"


def session_filter() -> Json:
    """The filter, which does nothing for routes without affinity."""
    return {"name": NAME, "typed_config": typed(f"{_KIND}StatefulSession")}


def affinity_of(route: Route, table: RouteTable) -> AffinityCookie | None:
    """By which cookie the clients of a route come back; refusals see to it that a split has one for all or none."""
    found = [table.clusters[part.cluster].affinity for part in route.to if part.cluster in table.clusters]
    return found[0] if found else None


def of_route(affinity: AffinityCookie) -> Json:
    """What a route asks for."""
    cookie: Json = {"name": affinity.cookie, "path": "/", "attributes": [{"name": "HttpOnly"}]}
    cookie["attributes"].append({"name": "SameSite", "value": "Lax"})
    if affinity.secure:
        cookie["attributes"].append({"name": "Secure"})
    if affinity.ttl:
        cookie["ttl"] = seconds(affinity.ttl)
    state = extension("envoy.http.stateful_session.cookie", _STATE, cookie=cookie)
    return typed(f"{_KIND}StatefulSessionPerRoute", stateful_session={"session_state": state})
