"""Fixed answers instead of those that a cluster could not give, put in by a few lines of Lua on routes that have one.

Another cluster as the fallback is `failovers`' part.
"""

from typing import Final

from toska_common.contracts.routing import Fallback, Policies, Respond
from toska_common.envoy.words import Json, typed

NAME: Final = "toska.fallback"
_KIND: Final = ".filters.http.lua.v3."
_CONDITIONS: Final = {
    "upstream-unavailable": "unavailable",
    "upstream-overloaded": "overloaded",
    "upstream-connect-failed": "connect",
    "upstream-reset": "reset",
    "bad-upstream-response": "reset",
    "upstream-timeout": "timeout",
}
"""By the codes of `replies`. (An upstream that is a gateway itself may say so, too, and is taken at its word.)"""
_SCRIPT: Final = """
function envoy_on_response(handle)
  local context = handle:filterContext()
  local on = context:get("on")
  local headers = handle:headers()
  local status = headers:get(":status")
  local failed = headers:get("x-toska-error")
  local why = failed and on[failed]
  if not why then
    if on[status] then
      why = status
    elseif on["5xx"] and status:sub(1, 1) == "5" then
      why = status
    else
      return
    end
  end
  local text, code, kind = context:get("body"), context:get("status"), context:get("content_type")
  local body = handle:body(true)  -- (waits until it is whole: what was taken from the handle before is stale then)
  body:setBytes(text)
  headers = handle:headers()
  for _, name in ipairs({"x-toska-error", "content-encoding", "etag", "last-modified", "retry-after"}) do
    headers:remove(name)
  end
  headers:replace(":status", code)
  headers:replace("content-type", kind)
  headers:replace("content-length", tostring(#text))
  headers:replace("x-toska-fallback", why)
end
"""


def fixed_answer(policies: Policies) -> tuple[Fallback, Respond] | None:
    """When there is a fixed answer, and which, if there is one."""
    fallback = policies.fallback
    return None if fallback is None or fallback.respond is None else (fallback, fallback.respond)


def fallback_filter() -> Json:
    """The filter, which does nothing for routes without one."""
    script = typed(f"{_KIND}Lua", default_source_code={"inline_string": _SCRIPT})
    return {"name": NAME, "disabled": True, "typed_config": script}


def of_route(fallback: Fallback, respond: Respond) -> Json:
    """What a route answers, and when."""
    codes = {code: condition for code, condition in _CONDITIONS.items() if condition in fallback.on}
    statuses = {word: word for word in fallback.on if word[:1].isdigit()}
    context = {
        "on": {**codes, **statuses},
        "status": str(respond.status),
        "body": respond.body,
        "content_type": respond.content_type,
    }
    return typed(f"{_KIND}LuaPerRoute", filter_context=context)
