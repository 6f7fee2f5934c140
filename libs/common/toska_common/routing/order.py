"""Which of several matching routes takes a request: the order of precedence.

A request is taken by the first route, in this order, all of whose conditions hold:

1. Operators' routes (a file, the router's API) go before automatic ones.
2. An exact host goes before a wildcard, a longer wildcard before a shorter one, and no host at all comes last.
3. An exact path goes before a regular expression, that before a prefix, and a longer prefix before a shorter one.
4. More conditions go before fewer: methods, each header, each query parameter and `except_prefixes` count one each.
5. Otherwise the order of writing decides: the file's routes as they stand there, then those of the API by name.

If a route's other conditions do not hold, the next in the order is asked, also across hosts: a route without a host
takes what a route with the host left. Two routes with the very same conditions are a conflict (`checks`).
"""

from collections.abc import Hashable, Iterable

from toska_common.contracts.routing import Match, Route

AUTOMATIC_PREFIX = "auto:"
"""How the names of automatic routes begin; operators' routes cannot take such a name."""


def is_automatic(route: Route) -> bool:
    """Whether a route was made for a service that asked for one."""
    return route.name.startswith(AUTOMATIC_PREFIX)


def order_routes(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Sort routes, given in the order of writing, by precedence."""
    return tuple(sorted(routes, key=precedence))


def precedence(route: Route) -> tuple[int, ...]:
    """Sort key of a route: the smaller goes first."""
    return (is_automatic(route), *_host_rank(route.match.host), *_path_rank(route.match), -conditions(route.match))


def conditions(match: Match) -> int:
    """How many conditions a match has besides host and path."""
    return len(match.headers) + len(match.query) + bool(match.methods) + bool(match.except_prefixes)


def match_identity(match: Match) -> Hashable:
    """What two matches have in common if they take exactly the same requests."""
    return (
        match.host,
        match.path,
        match.path_regex,
        match.path_prefix and (match.path_prefix.rstrip("/") or "/"),
        frozenset(match.except_prefixes),
        frozenset(match.methods),
        frozenset(match.headers.items()),
        frozenset(match.query.items()),
    )


def _host_rank(host: str | None) -> tuple[int, int]:
    if host is None:
        return 2, 0
    return (1, -len(host)) if host.startswith("*.") else (0, 0)


def _path_rank(match: Match) -> tuple[int, int]:
    if match.path is not None:
        return 0, 0
    # Before prefixes, lest a catch-all leaves nothing to it; among one another they have no order but the writing's.
    return (1, 0) if match.path_regex is not None else (2, -len((match.path_prefix or "/").rstrip("/")))
