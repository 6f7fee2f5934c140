"""Faults on purpose.

Envoy does not end them by itself: whoever tells it what to do says it again without those that are over, when they are.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from toska_common.contracts.routing import Fault, Route, RouteTable
from toska_common.envoy.words import Json, exactly, fitting, fraction, seconds, typed

NAME = "toska.fault"
_KIND = ".filters.http.fault.v3.HTTPFault"


def fault_filter() -> Json:
    """The filter, which does nothing for routes without a fault."""
    return {"name": NAME, "typed_config": typed(_KIND)}


def ended(table: RouteTable, now: datetime) -> RouteTable:
    """The table without the faults that are over."""
    over = [route.policies.fault is not None and _is_over(route.policies.fault, now) for route in table.routes]
    if not any(over):
        return table
    routes = (
        route.model_copy(update={"policies": route.policies.model_copy(update={"fault": None})}) if gone else route
        for route, gone in zip(table.routes, over, strict=True)
    )
    return table.model_copy(update={"routes": tuple(routes)})


def next_end(table: RouteTable, now: datetime) -> datetime | None:
    """When the next fault will be over."""
    ends = (route.policies.fault.until for route in table.routes if route.policies.fault is not None)
    return min((end for end in ends if end is not None and end > now), default=None)


def _is_over(policy: Fault, now: datetime) -> bool:
    return policy.until is not None and policy.until <= now


def hits(route: Route, cluster: str) -> bool:
    """Whether requests of a route that go to a cluster are hit."""
    policy = route.policies.fault
    return policy is not None and (not policy.clusters or cluster in policy.clusters)


def fault(policy: Fault, named: tuple[str, Iterable[str]] | None = None) -> Json:
    """Of a route; `named` is a header, and what it has to be one of."""
    made = typed(_KIND)
    if policy.delay is not None:
        made["delay"] = {"fixed_delay": seconds(policy.delay.fixed), "percentage": fraction(policy.delay.percent)}
    if policy.abort is not None and policy.abort.status is not None:
        made["abort"] = {"http_status": policy.abort.status, "percentage": fraction(policy.abort.percent)}
    wanted = [exactly(name, value) for name, value in policy.headers.items()]
    if named is not None:
        wanted.append(fitting(named[0], "|".join(re.escape(value) for value in named[1])))
    if wanted:
        made["headers"] = wanted
    return made
