"""Query parameters of changes: `?dry-run=true`, misspelt, must not come to a change that nobody wanted."""

from fastapi import Request
from fastapi.routing import APIRoute
from toska_common.errors import InvalidInput
from toska_common.routing.problems import suggestion
from toska_common.security import SAFE_METHODS


async def require_known_parameters(request: Request) -> None:
    """Let a change pass if each of its parameters is one that its operation has, and stands once.

    Raises:
        InvalidInput: One is unknown, or stands twice.
    """
    route = request.scope.get("route")
    if request.method in SAFE_METHODS or not isinstance(route, APIRoute):
        return
    known = [parameter.alias for parameter in route.dependant.query_params]
    given = [name for name, _ in request.query_params.multi_items()]
    problems = [
        {"field": name, "reason": _unknown(name, known) if name not in known else "stands twice"}
        for name in dict.fromkeys(given)
        if name not in known or given.count(name) > 1
    ]
    if problems:
        raise InvalidInput(f"{problems[0]['field']}: {problems[0]['reason']}; nothing was changed", problems=problems)


def _unknown(name: str, known: list[str]) -> str:
    close = suggestion(name, known)
    listed = f"; known here: {', '.join(known)}" if known else "; this operation has none"
    return f"unknown parameter{close or listed}"
