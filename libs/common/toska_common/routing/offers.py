"""Routes that a service asks for: read from its metadata, and held to what a service may ask for.

Whoever may register a service can write this, so it is trusted with what concerns that service alone: requests below
`/{service}`, which go to its own instances, and policies that touch nothing else of the mesh. Everything else is
refused, and the refusal is of all that the text says. Pure.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from toska_common.contracts import Document
from toska_common.contracts.names import ResourceName, is_reserved
from toska_common.contracts.routing import Match, Policies, Rewrite, Route, WeightedCluster
from toska_common.path_templates import PathTemplate
from toska_common.routing.document import load_resource
from toska_common.routing.order import AUTOMATIC_PREFIX, match_identity
from toska_common.routing.problems import Finding, InvalidDocument, Problem, format_location

MAX_ROUTES = 32
ALLOWED_POLICIES = frozenset(
    {
        "timeout", "connect_timeout", "response_timeout", "idle_timeout", "retry", "hedge", "require_https", "cors",
        "security_headers", "rate_limit", "headers", "cache", "compress", "upgrade", "escaped_slashes",
    }
)  # fmt: skip
"""Not among them: what leads to other clusters, runs code, reads files of the gateway, or hides what happens."""
CLOSED = ("metrics", "health")
"""What is below a service's prefix and not for everybody."""
_STANDS_FOR = ("path", "path_prefix", "path_template")


class OfferedRoute(Document):
    """A route as a service writes it. It leads to the service itself, which is asked without `/{service}`."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,46}[A-Za-z0-9])?$")]
    match: Match
    policies_from: tuple[ResourceName, ...] = Field(default=(), max_length=8)
    policies: Policies = Policies()


class Offer(Document):
    """All that a service asks for."""

    routes: tuple[OfferedRoute, ...]


def read_offer(service: str, text: str) -> tuple[Route, ...]:
    """The routes that the text of a service's metadata asks for.

    Raises:
        InvalidDocument: Something about it is wrong, or not a service's to ask for; nothing of it is used.
    """
    source = f"the routes of the service {service}"
    offer = load_resource(Offer, f'{{"routes":{text}}}', source=source)
    findings = list(_check(service, offer.routes))
    made: list[Route] = []
    for index, offered in enumerate(offer.routes if not findings else ()):
        try:
            made.append(_route(service, offered))
        except ValidationError as error:
            reasons = (str(entry["msg"]).removeprefix("Value error, ") for entry in error.errors(include_url=False))
            findings += [Finding(("routes", index), reason) for reason in reasons]
    if findings:
        problems = [Problem(format_location(finding.location), None, finding.reason) for finding in findings]
        raise InvalidDocument(problems, source=source)
    return tuple(made)


def _check(service: str, routes: Sequence[OfferedRoute]) -> Iterator[Finding]:
    if is_reserved(service):
        yield Finding(("routes",), f"a service of the name {service} has no routes of its own")
    if len(routes) > MAX_ROUTES:
        yield Finding(("routes",), f"there are {len(routes)}, and {MAX_ROUTES} are allowed")
    seen: dict[object, str] = {}
    for index, route in enumerate(routes):
        at = ("routes", index)
        yield from (Finding((*at, *finding.location), finding.reason) for finding in _check_one(service, route))
        if route.name in seen.values():
            yield Finding((*at, "name"), f'"{route.name}" stands twice')
        other = seen.setdefault(match_identity(route.match), route.name)
        if other != route.name:
            yield Finding((*at, "match"), f'"{other}" matches the same requests')


def _check_one(service: str, route: OfferedRoute) -> Iterator[Finding]:
    for key in sorted(route.policies.model_fields_set - ALLOWED_POLICIES):
        yield Finding(("policies", key), "is an operator's to say, not a service's")
    if route.match.except_prefixes and route.match.path_prefix is None:
        yield Finding(("match", "except_prefixes"), "except_prefixes needs path_prefix")
    given = next((key for key in _STANDS_FOR if getattr(route.match, key) is not None), None)
    if given is None:
        yield Finding(("match",), f"give one of {', '.join(_STANDS_FOR)}: only they show where the route stands")
        return
    path: str = getattr(route.match, given)
    head, own, *rest = [*path.split("/"), ""]
    if head or own != service:
        yield Finding(("match", given), f"{path} is not below /{service}")
    elif rest and rest[0] in CLOSED:
        yield Finding(("match", given), f"/{service}/{rest[0]} is not for everybody")
    elif given == "path_template" and (len(parts := PathTemplate(path).segments) < 2 or parts[1] is None):
        yield Finding(("match", given), f"the segment after /{service} is written out, without a variable")


def _route(service: str, offered: OfferedRoute) -> Route:
    match, policies = offered.match, offered.policies
    whole = match.path_prefix is not None and match.path_prefix.rstrip("/") == f"/{service}"
    if whole:
        closed = (f"/{service}/{name}" for name in CLOSED)
        match = match.model_copy(update={"except_prefixes": tuple(dict.fromkeys((*match.except_prefixes, *closed)))})
    else:
        rewrite = Rewrite(regex=f"/{service}(/.*)", replacement=r"\1")
        policies = policies.model_copy(update={"rewrite": rewrite})
    return Route(
        name=f"{AUTOMATIC_PREFIX}{service}:{offered.name}",
        match=match,
        to=(WeightedCluster(cluster=service),),
        strip_prefix=whole,
        policies_from=offered.policies_from,
        policies=policies,
    )
