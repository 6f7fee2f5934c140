"""Policies by name, and what a route's come to.

Of two policies that a route names, the later one goes before the earlier, and the route's own go before both; key by
key, each taken whole. A key counts where it is written, also with its default: `compress: null` switches off what an
earlier policy switches on.

The merged route keeps its `policies_from`, so that it can still be told where its policies come from.
"""

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from toska_common.contracts.routing import Policies, Route

Named = Mapping[str, Policies]
_KEYS = frozenset(Policies.model_fields)
"""What a route's policies have; a name's own settings are not among them."""


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


class Merger:
    """Merges the routes of one table after another, and remembers those that stayed: 10,000 take half a second."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Route, tuple[Policies, ...], Route]] = {}

    def merge_all(self, routes: Iterable[Route], named: Named) -> list[Route]:
        """Merge checked routes."""
        before, self._known = self._known, {}
        return [self._merge(route, named, before) if route.policies_from else route for route in routes]

    def _merge(
        self, route: Route, named: Named, before: Mapping[int, tuple[Route, tuple[Policies, ...], Route]]
    ) -> Route:
        parts = tuple(named[name] for name in route.policies_from)
        known = before.get(id(route))
        # The entry holds the route, so its id is nobody else's.
        if known is None or any(now is not then for now, then in zip(parts, known[1], strict=True)):
            known = (route, parts, merge(route, named))
        self._known[id(route)] = known
        return known[2]
