"""Rate limits, counted by Envoy itself in token buckets that refill evenly."""

from typing import Final

from toska_common.contracts.routing import Auth, RateLimit
from toska_common.envoy.access import JWT_FILTER
from toska_common.envoy.tokens import provider_name
from toska_common.envoy.words import Json, fraction, seconds, typed

NAME: Final = "toska.rate_limit"
_KIND: Final = ".filters.http.local_ratelimit.v3.LocalRateLimit"
_NUMBER: Final = "limit"
_KEY: Final = "key"
TOLD: Final = "toska.rate_told"
_LUA: Final = ".filters.http.lua.v3."
_SCRIPT: Final = """
local function told(headers, name)
  local value = headers:get(name)
  if not value then return nil end
  local before, own = value:match("^(.*),%s*(%d+)$")
  -- (what an upstream says of limits of its own stays)
  if before then headers:replace(name, before) else headers:remove(name) end
  return tonumber(own or value)
end
function envoy_on_response(handle)
  local headers = handle:headers()
  local most, left = told(headers, "x-ratelimit-limit"), told(headers, "x-ratelimit-remaining")
  local wait = told(headers, "x-ratelimit-reset")
  if not (most and left and wait) then return end
  local context = handle:filterContext()
  local limits = context:get("limits")
  local limit = limits[1]
  for _, one in ipairs(limits) do
    if one.burst == most then limit = one break end
  end
  headers:replace("ratelimit-policy", context:get("policy"))
  if headers:get("x-toska-error") == "rate-limited" then
    wait = math.max(1, wait)
    headers:replace("retry-after", string.format("%d", wait))
  else
    wait = math.ceil((limit.burst - left) * limit.interval - 1e-6)
  end
  headers:replace("ratelimit", string.format('"%s";r=%d;t=%d', limit.name, left, wait))
end
"""
_CLIENTS: Final = 8192
"""Allowances of clients that are kept at once."""


def rate_limit_filter() -> Json:
    """The filter, which limits nothing by itself."""
    return {"name": NAME, "typed_config": typed(_KIND, stat_prefix="rate_limit")}


def told_filter() -> Json:
    """Tells clients what is left in the words of our own workers; it stands before the one that limits."""
    script = typed(f"{_LUA}Lua", default_source_code={"inline_string": _SCRIPT})
    return {"name": TOLD, "disabled": True, "typed_config": script}


def told(route: str, limits: tuple[RateLimit, ...]) -> Json:
    """What the limits of a route are (`toska_gateway.worker.rate_limit` has their form)."""
    known: list[Json] = []
    policies: list[str] = []
    for number, limit in enumerate(limits, 1):
        name = route if number == 1 else f"{route}-{number}"
        per = limit.per.total_seconds()
        known.append({"name": name, "burst": limit.burst or limit.requests, "interval": per / limit.requests})
        policies.append(f'"{name}";q={limit.requests};w={max(1, round(per))}')
    return typed(f"{_LUA}LuaPerRoute", filter_context={"limits": known, "policy": ", ".join(policies)})


def rate_limits(route: str, limits: tuple[RateLimit, ...], auth: Auth | None) -> Json:
    """Of a route."""
    keyed = [(str(number), limit) for number, limit in enumerate(limits) if limit.key != "route"]
    common = [limit for limit in limits if limit.key == "route"]
    # Who lacks the key takes from the bucket of all, which is that of the only limit, or has room for everybody.
    default = (common or list(limits))[0]
    made = typed(
        _KIND,
        stat_prefix="rate_limit",
        token_bucket=_bucket(default),
        filter_enabled={"default_value": fraction(100)},
        filter_enforced={"default_value": fraction(100)},
        always_consume_default_token_bucket=bool(common),
        status={"code": "TooManyRequests"},
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
    )
    if keyed:
        made["rate_limits"] = [{"actions": [_mark(number), _action(limit, auth)]} for number, limit in keyed]
        made["descriptors"] = [
            {"entries": [{"key": _NUMBER, "value": number}, {"key": _entry_key(limit)}], "token_bucket": _bucket(limit)}
            for number, limit in keyed
        ]
        made["max_dynamic_descriptors"] = _CLIENTS
    return made


def _bucket(limit: RateLimit) -> Json:
    return {
        "max_tokens": limit.burst or limit.requests,
        "tokens_per_fill": limit.requests,
        "fill_interval": seconds(limit.per),
    }


def _mark(number: str) -> Json:
    return {"generic_key": {"descriptor_key": _NUMBER, "descriptor_value": number}}


def _entry_key(limit: RateLimit) -> str:
    return "remote_address" if limit.key == "client_ip" else _KEY


def _action(limit: RateLimit, auth: Auth | None) -> Json:
    kind, _, name = limit.key.partition(":")
    if kind == "header":
        return {"request_headers": {"header_name": name, "descriptor_key": _KEY}}
    if kind == "claim" and auth is not None:
        path = [f"{provider_name(auth.jwt)}.payload", *name.split(".")]
        key = {"key": JWT_FILTER, "path": [{"key": part} for part in path]}
        return {"metadata": {"descriptor_key": _KEY, "metadata_key": key, "source": "DYNAMIC"}}
    return {"remote_address": {}}
