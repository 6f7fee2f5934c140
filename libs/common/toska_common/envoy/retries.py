"""Timeouts and further attempts of a route."""

from collections.abc import Collection
from datetime import timedelta
from typing import Final

from toska_common.contracts.routing import Fallback, Policies
from toska_common.envoy.words import Json, extension, seconds

IDEMPOTENT: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE")
_BEFORE_SENDING: Final = frozenset({"connect", "unavailable", "circuit_open", "overloaded"})
_CONNECT: Final = "connect-failure"
_UNTOUCHED: Final = (_CONNECT, "refused-stream")
_PREVIOUS: Final = ".retry.host.previous_hosts.v3.PreviousHostsPredicate"
_LEAST_BACKOFF: Final = timedelta(milliseconds=1)


def repeats_more_than_connects(policies: Policies) -> bool:
    """Whether what may be done twice is sent again in more cases than other requests."""
    retry, fallback = policies.retry, policies.fallback
    again = retry.retry_on if retry.attempts > 1 else ()
    elsewhere = fallback.on if fallback is not None and fallback.cluster is not None else ()
    return policies.hedge is not None or not {*again, *elsewhere} <= _BEFORE_SENDING


def timeouts(policies: Policies) -> Json:
    """Of a route's action.

    Envoy has one idle time for waiting for a response and for the bytes of bodies. It ends a request for good, while a
    try that takes too long is repeated wherever a connection that breaks is: so the idle time is used where it can be.
    """
    idle = max(policies.idle_timeout, policies.response_timeout)
    if policies.upgrade:
        idle = max(idle, 10 * policies.idle_timeout)
    return {
        "timeout": seconds(policies.timeout or timedelta()),
        "idle_timeout": seconds(idle),
    }


def retry_policy(policies: Policies, *, idempotent: bool, fallback: Fallback | None = None) -> Json:
    """What is tried again; `idempotent` is a request that may be sent twice.

    A `fallback` to another cluster is one attempt more. Envoy has one list of conditions for all of them, so what it
    goes by is also tried again before.
    """
    retry = policies.retry
    limited: Json = {}
    per_try = retry.per_try_timeout
    if per_try is None and (policies.response_timeout < policies.idle_timeout or "timeout" in retry.retry_on):
        per_try = policies.response_timeout
    if per_try is not None:
        limited["per_try_timeout"] = seconds(per_try)
    hedge = policies.hedge if idempotent else None
    further = retry.attempts - 1 + (fallback is not None)
    if hedge is not None:
        limited["per_try_timeout"] = seconds(hedge.after)
        further = max(further, hedge.attempts)
    named = {*(retry.retry_on if retry.attempts > 1 else ()), *(fallback.on if fallback is not None else ())}
    conditions, statuses = _conditions(named, idempotent=idempotent)
    if hedge is not None and not conditions:
        conditions = [*_UNTOUCHED]  # Envoy hedges only where it would retry something
    if not further or not conditions:
        return {**limited, "num_retries": 0}
    policy: Json = {
        **limited,
        "retry_on": ",".join(conditions),
        "num_retries": further,
        "retry_host_predicate": [extension("envoy.retry_host_predicates.previous_hosts", _PREVIOUS)],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {
            "base_interval": seconds(max(retry.backoff.base, _LEAST_BACKOFF)),
            "max_interval": seconds(max(retry.backoff.max, retry.backoff.base, _LEAST_BACKOFF)),
        },
    }
    if statuses:
        policy["retriable_status_codes"] = statuses
        policy["rate_limited_retry_back_off"] = {
            "reset_headers": [{"name": "Retry-After", "format": "SECONDS"}],
            "max_interval": seconds(max(retry.max_retry_after, _LEAST_BACKOFF)),
        }
    return policy


def hedge_policy(policies: Policies, *, idempotent: bool) -> Json:
    """Part of a route's action: a try that takes long is not ended when the next one begins."""
    return {"hedge_policy": {"hedge_on_per_try_timeout": True}} if policies.hedge is not None and idempotent else {}


def _conditions(named: Collection[str], *, idempotent: bool) -> tuple[list[str], list[int]]:
    named = set(named)
    conditions = [*_UNTOUCHED] if named & {"connect", "reset"} else []
    if not idempotent:
        return conditions, []
    if named & {"reset", "timeout"}:
        conditions.append("reset")
    statuses = sorted(int(word) for word in named if word.isdigit())
    if "5xx" in named:
        statuses = sorted({*statuses, *range(500, 600)})
    if statuses:
        conditions.append("retriable-status-codes")
    return conditions, statuses
