"""Which requests a route takes, in Envoy's words.

Envoy goes through a virtual host's routes in order and takes the first that matches, so the table's own order is kept.
It picks the virtual host by host name alone, and the contract lets a route without a host take what those with the host
left: each virtual host therefore has the routes of every pattern that covers it.
"""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from toska_common.contracts.routing import Match, Route
from toska_common.contracts.routing.matching import Conditions
from toska_common.envoy import clients, values
from toska_common.envoy.words import Json, exactly, fitting
from toska_common.path_templates import PathTemplate

_IN_PATHS = "/!$&'()*+,;=:@-._~"


def encoded(path: str) -> str:
    """A path of the contract, which is decoded, as it stands in a request."""
    return quote(path, safe=_IN_PATHS)


def without_slash(prefix: str) -> str:
    """A prefix as segments: empty for all paths."""
    return prefix.rstrip("/")


def path_regex(match: Match) -> str | None:
    """The expression that paths have to fit: a template is one, too."""
    if match.path_template is not None:
        return PathTemplate(encoded_template(match.path_template)).regex
    return match.path_regex


def encoded_template(template: str) -> str:
    """A template as it stands in a request; variables stay as they are."""
    return quote(template, safe=_IN_PATHS + "{}")


def path_match(match: Match) -> Json:
    """The path alone."""
    if match.path is not None:
        return {"path": encoded(match.path)}
    if (regex := path_regex(match)) is not None:
        return {"safe_regex": {"regex": regex}}
    prefix = without_slash(match.path_prefix or "/")
    return {"path_separated_prefix": encoded(prefix)} if prefix else {"prefix": "/"}


def match_of(
    match: Match, *, methods: Sequence[str] = (), headers: Iterable[Json] = (), when: Conditions | None = None
) -> Json:
    """A whole match; `methods` stand for those of `match`, and `headers` and `when` are further conditions."""
    conditions = [*headers]
    if methods:
        conditions.append(method_among(methods))
    conditions += values.conditions(match)
    conditions += [_outside(prefix) for prefix in match.except_prefixes]
    found = path_match(match)
    if when is not None:
        conditions += values.conditions(when)
    if conditions:
        found["headers"] = conditions
    if addresses := clients.matchers((match.client_ip, when.client_ip if when is not None else ())):
        found["filter_state"] = addresses
    query = [*values.parameters(match), *(values.parameters(when) if when is not None else ())]
    if query:
        found["query_parameters"] = query
    return found


def method_among(methods: Sequence[str]) -> Json:
    """Matches requests by one of these methods."""
    return exactly(":method", methods[0]) if len(methods) == 1 else fitting(":method", "|".join(methods))


def _outside(prefix: str) -> Json:
    return fitting(":path", f"{re.escape(encoded(without_slash(prefix)))}(?:[/?].*)?", invert=True)


def hosts_of(routes: Iterable[Route]) -> list[str | None]:
    """Every pattern of a host, and `None` for all others, each once."""
    return [*dict.fromkeys(route.match.host for route in routes if route.match.host is not None), None]


def patterns_of(host: str | None) -> list[str | None]:
    """Every pattern whose routes take requests of a virtual host: its own, the wildcards above it, and none."""
    if host is None:
        return [None]
    _, *above = host.removeprefix("*.").split(".")
    return [host, *("*." + ".".join(above[place:]) for place in range(len(above))), None]


def domain(host: str | None) -> str:
    """A pattern as a virtual host's domain."""
    return "*" if host is None else host
