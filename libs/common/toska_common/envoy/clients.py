"""Routes that go by the client's address.

Envoy matches a route by an address that stands in its filter state. Of strangers it is put there once, with the
connection. What trusted proxies say of it comes with each request, and is known only after a route has been chosen: a
filter puts it there, and has the route chosen again. Filters of some routes only are switched on by the first choice,
so where that happens all are there, and the routes that did not ask for one switch it off.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from toska_common.contracts.names import UNIX_PREFIX
from toska_common.contracts.routing import RouteTable
from toska_common.envoy.access import cidr
from toska_common.envoy.headers import CLIENT
from toska_common.envoy.words import Json, extension, typed

_KEY: Final = "toska.client"
_FILTERS: Final = ".filters."
_AGAIN: Final = "function envoy_on_request(handle) handle:clearRouteCache() end"
_OFF: Final = {
    ".filters.http.buffer.v3.Buffer": typed(".filters.http.buffer.v3.BufferPerRoute", disabled=True),
    ".filters.http.compressor.v3.Compressor": typed(".filters.http.compressor.v3.CompressorPerRoute", disabled=True),
    ".filters.http.lua.v3.Lua": typed(".filters.http.lua.v3.LuaPerRoute", disabled=True),
}


def matters(table: RouteTable) -> bool:
    """Whether any route goes by it."""
    return any(
        route.match.client_ip or any(part.when is not None and part.when.client_ip for part in route.to)
        for route in table.routes
    )


def is_told(table: RouteTable) -> bool:
    """Whether any route goes by what trusted proxies say of it."""
    return bool(table.server.trusted_proxies) and matters(table)


def matchers(networks: Iterable[Sequence[str]]) -> list[Json]:
    """Of a route's match: an address has to be in one of the networks of each group."""
    return [
        {"key": _KEY, "address_match": {"ranges": [cidr(one) for one in group if one != UNIX_PREFIX]}}
        for group in networks
        if group
    ]


def of_connections() -> Json:
    """The network filter, before the connection manager of a listener for strangers."""
    return extension(_KEY, f"{_FILTERS}network.set_filter_state.v3.Config", on_new_connection=[_value()])


def of_requests() -> list[Json]:
    """The first HTTP filters of a listener for trusted proxies."""
    return [
        extension(_KEY, f"{_FILTERS}http.set_filter_state.v3.Config", on_request_headers=[_value()]),
        extension("toska.route_again", f"{_FILTERS}http.lua.v3.Lua", default_source_code={"inline_string": _AGAIN}),
    ]


def _value() -> Json:
    form = {"text_format_source": {"inline_string": CLIENT}}
    return {"object_key": _KEY, "factory_key": "envoy.network.ip", "format_string": form}


def always_there(filters: Iterable[Json]) -> list[Json]:
    """HTTP filters, those that only some routes switch on included."""
    return [{name: value for name, value in one.items() if name != "disabled"} for one in filters]


def switched_off(filters: Iterable[Json]) -> dict[str, Json]:
    """What routes that ask for none of those say."""
    return {
        one["name"]: off
        for one in filters
        if one.get("disabled")
        for kind, off in _OFF.items()
        if one["typed_config"]["@type"].endswith(kind)
    }
