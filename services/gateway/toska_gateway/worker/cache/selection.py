"""What a stored response is good for, given a request (RFC 9111 §4, RFC 5861, RFC 8246). Pure.

fresh ──────────► hit
stale ─┬─ stale-while-revalidate ─► served, and asked for anew meanwhile
       └─ otherwise ─► validated ─┬─ 304 ─► fresh
                                  ├─ another response ─► stored in its place
                                  └─ an error ─► stands in, within stale-if-error; for
                                                     the next seconds nobody else waits for it
"""

from enum import Enum

from toska_gateway.worker.cache.directives import RequestDirectives
from toska_gateway.worker.cache.entry import Entry


class Use(Enum):
    """What to do with a stored response that a request has selected."""

    HIT = "hit"
    WHILE_REVALIDATING = "stale"
    VALIDATE_STALE = "fwd-stale"
    VALIDATE_ASKED = "fwd-request"


def judge(entry: Entry, asked: RequestDirectives, now: float) -> Use:
    """What to do with `entry` for a request that asks this of caches."""
    if asked.no_cache:
        return Use.VALIDATE_ASKED
    ttl = entry.ttl(now)
    if entry.no_cache:
        return Use.VALIDATE_STALE
    if asked.max_age is not None and now - entry.born_at > asked.max_age and not (entry.immutable and ttl > 0):
        # RFC 8246 §2: a reload, which says max-age=0, is no reason to ask for what cannot have changed.
        return Use.VALIDATE_ASKED
    if asked.min_fresh is not None and ttl < asked.min_fresh:
        return Use.VALIDATE_ASKED
    if ttl > 0:
        return Use.HIT
    if entry.must_revalidate:
        return Use.VALIDATE_STALE
    if asked.max_stale is not None and (asked.max_stale < 0 or -ttl <= asked.max_stale):
        return Use.HIT
    if -ttl < entry.stale_while_revalidate_s:
        return Use.WHILE_REVALIDATING
    if entry.failed_until > now and may_stand_in(entry, asked, now):
        # Whoever comes now need not wait for the same failure again: one request in the background finds out for all.
        return Use.WHILE_REVALIDATING
    return Use.VALIDATE_STALE


def may_stand_in(entry: Entry, asked: RequestDirectives, now: float) -> bool:
    """Whether `entry` may be given instead of an error (RFC 5861 §4)."""
    if entry.no_cache or entry.must_revalidate or asked.no_cache:
        return False
    return -entry.ttl(now) < max(entry.stale_if_error_s, asked.stale_if_error or 0)
