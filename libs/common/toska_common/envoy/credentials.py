"""The mesh's own tokens: taken out of what goes to users' clusters, in Authorization, cookies and the query.

A matcher looks for how they begin, so that only requests that show one cost more than that; those run a few lines of
Lua, which leave routes to the mesh's own clusters alone.
"""

from typing import Final

from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.contracts.routing import Route
from toska_common.credentials import TOKEN_PREFIX
from toska_common.envoy.words import Json, typed

_LUA_METADATA: Final = "toska.lua"
_PLACES: Final = ("authorization", "cookie", ":path", "x-api-key")
_SCRIPT: Final = """
local function kept(text, between)
  local parts = {}
  for part in text:gmatch("[^" .. between .. "]+") do
    if not part:find("PREFIX", 1, true) then parts[#parts + 1] = part end
  end
  return table.concat(parts, between)
end
function envoy_on_request(handle)
  if handle:metadata():get("own") then return end
  local headers = handle:headers()
  for _, name in ipairs({"authorization", "x-api-key"}) do
    local value = headers:get(name)
    if value and value:find("PREFIX", 1, true) then headers:remove(name) end
  end
  local cookie = headers:get("cookie")
  if cookie and cookie:find("PREFIX", 1, true) then
    local rest = kept(cookie, ";"):gsub("^%s+", "")
    if rest == "" then headers:remove("cookie") else headers:replace("cookie", rest) end
  end
  local path = headers:get(":path")
  local at = path:find("?", 1, true)
  if at and path:find("PREFIX", at, true) then
    local rest = kept(path:sub(at + 1), "&")
    headers:replace(":path", rest == "" and path:sub(1, at - 1) or path:sub(1, at) .. rest)
  end
end
""".replace("PREFIX", TOKEN_PREFIX)


def credentials_filter() -> Json:
    """The filter of every listener."""
    lua = typed(".filters.http.lua.v3.Lua", default_source_code={"inline_string": _SCRIPT})
    action = typed(
        ".filters.http.composite.v3.ExecuteFilterAction", typed_config={"name": _LUA_METADATA, "typed_config": lua}
    )
    matcher = {
        "matcher_list": {
            "matchers": [
                {
                    "predicate": {"or_matcher": {"predicate": [_shown(name) for name in _PLACES]}},
                    "on_match": {"action": {"name": "toska.strip", "typed_config": action}},
                }
            ]
        }
    }
    extension_config = {"name": "toska.composite", "typed_config": typed(".filters.http.composite.v3.Composite")}
    config = typed(".common.matching.v3.ExtensionWithMatcher", extension_config=extension_config, xds_matcher=matcher)
    return {"name": "toska.credentials", "typed_config": config}


def _shown(name: str) -> Json:
    given = {"name": name, "typed_config": typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=name)}
    return {"single_predicate": {"input": given, "value_match": {"contains": TOKEN_PREFIX}}}


def is_own(route: Route) -> bool:
    """Whether a route leads to the mesh's own clusters."""
    return bool(route.to) and all(part.cluster.startswith(RESERVED_PREFIX) for part in route.to)


def own_metadata() -> Json:
    """What tells the filter of such a route."""
    return {_LUA_METADATA: {"own": True}, "envoy.filters.http.lua": {"own": True}}
