"""Faults on purpose."""

from toska_common.contracts.routing import Fault
from toska_common.envoy.words import Json, exactly, fraction, seconds, typed

NAME = "toska.fault"
_KIND = ".filters.http.fault.v3.HTTPFault"


def fault_filter() -> Json:
    """The filter, which does nothing for routes without a fault."""
    return {"name": NAME, "typed_config": typed(_KIND)}


def fault(policy: Fault) -> Json:
    """Of a route."""
    made = typed(_KIND)
    if policy.delay is not None:
        made["delay"] = {"fixed_delay": seconds(policy.delay.fixed), "percentage": fraction(policy.delay.percent)}
    if policy.abort is not None and policy.abort.status is not None:
        made["abort"] = {"http_status": policy.abort.status, "percentage": fraction(policy.abort.percent)}
    if policy.headers:
        made["headers"] = [exactly(name, value) for name, value in policy.headers.items()]
    return made
