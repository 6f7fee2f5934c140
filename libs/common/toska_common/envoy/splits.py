"""Splits whose callers stay with their part, by the same rule as in our own workers: weighted rendezvous.

Envoy's own weighted clusters can go by a hash, too, but cut it into intervals in the order of the parts: with three of
them a change of one weight moves callers of all. So a few lines of Lua score the parts as
`toska_common.balancing.rendezvous` does, with the same hash (BLAKE2b, RFC 7693), and name the cluster in a header that
the route goes by. Every caller is where our own workers would have it.
"""

from typing import Final

from toska_common.contracts.routing import Auth, Route, RouteTable, Sticky
from toska_common.envoy import failovers
from toska_common.envoy.access import JWT_FILTER
from toska_common.envoy.tokens import provider_name
from toska_common.envoy.words import Json, typed

NAME: Final = "toska.split"
PART: Final = "x-toska-part"
"""The header that names the cluster, from the filter to the route; upstreams do not get it."""
_KIND: Final = ".filters.http.lua.v3."
_SCRIPT: Final = r"""
local bit = require("bit")
local bxor, ror, lshift, rshift, bswap = bit.bxor, bit.ror, bit.lshift, bit.rshift, bit.bswap
local IV = {
  0x6a09e667f3bcc908ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL, 0xa54ff53a5f1d36f1ULL,
  0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL, 0x1f83d9abfb41bd6bULL, 0x5be0cd19137e2179ULL,
}
local SIGMA = {
  {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
  {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
  {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
  {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
  {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
}
local MIX = {
  {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}, {4, 8, 12, 16},
  {1, 6, 11, 16}, {2, 7, 12, 13}, {3, 8, 9, 14}, {4, 5, 10, 15},
}
local function compress(h, block, count, last)
  local v, m = {}, {}
  for i = 1, 8 do v[i], v[i + 8] = h[i], IV[i] end
  v[13] = bxor(v[13], count)
  if last then v[15] = bit.bnot(v[15]) end
  for i = 0, 15 do
    local word = 0ULL
    for j = 8, 1, -1 do word = lshift(word, 8) + block:byte(i * 8 + j) end
    m[i] = word
  end
  for round = 0, 11 do
    local s = SIGMA[round % 10 + 1]
    for i = 1, 8 do
      local a, b, c, d = unpack(MIX[i])
      v[a] = v[a] + v[b] + m[s[2 * i - 1]]
      v[d] = ror(bxor(v[d], v[a]), 32)
      v[c] = v[c] + v[d]
      v[b] = ror(bxor(v[b], v[c]), 24)
      v[a] = v[a] + v[b] + m[s[2 * i]]
      v[d] = ror(bxor(v[d], v[a]), 16)
      v[c] = v[c] + v[d]
      v[b] = ror(bxor(v[b], v[c]), 63)
    end
  end
  for i = 1, 8 do h[i] = bxor(h[i], bxor(v[i], v[i + 8])) end
end
local function drawn(text)  -- in (0, 1), from the upper 53 bits of the hash
  local h = {}
  for i = 1, 8 do h[i] = IV[i] end
  h[1] = bxor(h[1], 0x01010008ULL)
  local at, size = 0, #text
  while size - at > 128 do
    compress(h, text:sub(at + 1, at + 128), 0ULL + at + 128, false)
    at = at + 128
  end
  local rest = text:sub(at + 1)
  compress(h, rest .. string.rep("\0", 128 - #rest), 0ULL + size, true)
  return (tonumber(rshift(bswap(h[1]), 11)) + 0.5) / 9007199254740992
end
local function of_key(parts, key)
  local best, chosen = -1, nil
  for _, part in ipairs(parts) do
    local score = -part.weight / math.log(drawn(part.name .. "\0" .. key))
    if score > best then best, chosen = score, part.cluster end
  end
  return chosen
end
local function by_weight(parts, total)
  local ticket = math.random() * total
  for _, part in ipairs(parts) do
    ticket = ticket - part.weight
    if ticket < 0 then return part.cluster end
  end
  return parts[#parts].cluster
end
local function cookie(headers, name)
  local given = headers:get("cookie") or ""
  for pair in given:gmatch("[^;]+") do
    local key, value = pair:match("^%s*([^=]-)%s*=%s*(.-)%s*$")
    if key == name then return value end
  end
end
local function claim(handle, by)
  local told = handle:streamInfo():dynamicMetadata():get(by.filter)
  local value = told and told[by.payload]
  if type(value) == "table" and value[by.name] ~= nil then
    value, by = value[by.name], {path = {}}
  end
  for _, part in ipairs(by.path) do
    if type(value) ~= "table" then return nil end
    value = value[part]
  end
  if type(value) == "number" and value == math.floor(value) then return string.format("%.0f", value) end
  if type(value) == "string" or type(value) == "number" then return tostring(value) end
  if type(value) == "boolean" then return value and "True" or "False" end
end
math.randomseed(os.time() + tonumber(tostring({}):match("0x(%x+)") or "0", 16) % 2147483648)
function envoy_on_request(handle)
  local context = handle:filterContext()
  local headers = handle:headers()
  local by, parts = context:get("by"), context:get("parts")
  local key
  if by.header then
    key = headers:get(by.header)
  elseif by.cookie then
    key = cookie(headers, by.cookie)
  elseif by.set_cookie then
    key = cookie(headers, by.set_cookie)
    if not (key and key:match("^[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]$")) then
      key = string.format("%05x", math.random(0, 1048575))
      handle:streamInfo():dynamicMetadata():set("NAME", "cookie", by.set_cookie .. "=" .. key .. by.attributes)
    end
  elseif by.claim then
    key = claim(handle, by.claim)
  elseif by.client_ip then
    local address = handle:streamInfo():downstreamRemoteAddress()
    key = address:match("^%[(.+)%]:%d+$") or address:match("^(.+):%d+$") or address
  end
  headers:replace("PART", key and of_key(parts, key) or by_weight(parts, context:get("total")))
end
function envoy_on_response(handle)
  local told = handle:streamInfo():dynamicMetadata():get("NAME")
  if told and told.cookie then handle:headers():add("set-cookie", told.cookie) end
end
""".replace("NAME", NAME).replace("PART", PART)


def find_sticky(route: Route) -> Sticky | None:
    """What callers stay with a part by, if there is more than one that they can stay with."""
    several = len(route.to) > 1 and any(part.when is None and part.weight for part in route.to)
    return route.sticky if several else None


def split_filter() -> Json:
    """The filter, which does nothing for routes without such a split."""
    script = typed(f"{_KIND}Lua", default_source_code={"inline_string": _SCRIPT})
    return {"name": NAME, "disabled": True, "typed_config": script}


def of_route(route: Route, sticky: Sticky, table: RouteTable) -> Json:
    """The parts, and what callers are known by."""
    present = [part for part in route.to if part.weight and part.when is None]
    parts = [
        {"name": part.cluster, "cluster": failovers.led_to(part.cluster, route, table), "weight": part.weight}
        for part in present
    ]
    context = {"parts": parts, "total": sum(part.weight for part in present), "by": _key(sticky, route.policies.auth)}
    return typed(f"{_KIND}LuaPerRoute", filter_context=context)


def _key(sticky: Sticky, auth: Auth | None) -> Json:
    if sticky.set_cookie is not None:
        lasts = f"; Max-Age={int(sticky.ttl.total_seconds())}" if sticky.ttl else ""
        secure = "; Secure" if sticky.secure else ""
        return {"set_cookie": sticky.set_cookie, "attributes": f"; Path=/; HttpOnly; SameSite=Lax{secure}{lasts}"}
    if sticky.header is not None:
        return {"header": sticky.header}
    if sticky.cookie is not None:
        return {"cookie": sticky.cookie}
    if sticky.claim is not None and auth is not None:
        payload = f"{provider_name(auth.jwt)}.payload"
        return {
            "claim": {"filter": JWT_FILTER, "payload": payload, "name": sticky.claim, "path": sticky.claim.split(".")}
        }
    return {"client_ip": True}
