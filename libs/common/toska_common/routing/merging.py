"""Policies by name, and what a route's come to.

Of two policies that a route names, the later one goes before the earlier, and the route's own go before both; key by
key, each taken whole. A key counts where it is written, also with its default: `compress: null` switches off what an
earlier policy switches on.

The merged route keeps its `policies_from`, so that it can still be told where its policies come from.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from toska_common.contracts.routing import Policies, Route
from toska_common.routing.memory import Memo

Named = Mapping[str, Policies]
_KEYS = frozenset(Policies.model_fields)
"""What a route's policies have; a name's own settings are not among them."""
_MERGED: Final = Memo[Route, tuple[tuple[Policies, ...], Route]]()


def merge(route: Route, named: Named) -> Route:
    """The route with its policies merged; one that names none is returned as it is.

    Raises:
        KeyError: There is no policy of a name.
        ValueError: What they come to does not go together, or not with the route.
    """
    if not route.policies_from:
        return route
    parts = [*(named[name] for name in route.policies_from), route.policies]
    written = {key: getattr(part, key) for part in parts for key in part.model_fields_set & _KEYS}
    try:
        fields = {key: getattr(route, key) for key in route.model_fields_set}
        merged = Route.model_validate({**fields, "policies": Policies.model_validate(written)})
    except ValidationError as error:
        reasons = (str(entry["msg"]).removeprefix("Value error, ") for entry in error.errors(include_url=False))
        raise ValueError("; ".join(reasons)) from error
    merged.check_complete()
    return merged


def merge_known(route: Route, named: Named) -> Route:
    """The same, of a checked route; worked out once for the same policies, since 10,000 take half a second."""
    if not route.policies_from:
        return route
    parts = tuple(named[name] for name in route.policies_from)
    known = _MERGED.get(route)
    if known is None or any(now is not then for now, then in zip(parts, known[0], strict=True)):
        known = _MERGED.put(route, (parts, merge(route, named)))
    return known[1]
