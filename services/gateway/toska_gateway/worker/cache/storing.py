"""Whether a response is stored, and what is kept of it (RFC 9111 §3). Pure: a refusal has its reason in a word."""

from dataclasses import dataclass, field
from typing import Final

from toska_gateway.worker.cache.dates import read_date, write_date
from toska_gateway.worker.cache.directives import read_response_directives
from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.cache.freshness import FreshnessRules, initial_age, lifetime_of
from toska_gateway.worker.cache.groups import read_groups
from toska_gateway.worker.cache.preconditions import is_etag
from toska_gateway.worker.cache.vary import read_vary
from toska_gateway.worker.http1 import field_name, field_value

DEFAULT_STATUSES: Final = (200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501)
_MATTERS: Final = frozenset(
    {
        b"age", b"cache-control", b"cache-groups", b"content-range", b"date", b"etag", b"expires", b"last-modified",
        b"set-cookie", b"set-cookie2", b"vary",
    }
)  # fmt: skip
_COOKIES: Final = frozenset({b"set-cookie", b"set-cookie2"})
# What belongs to one exchange with the origin or to its time; Content-Length is written anew.
_NOT_KEPT: Final = frozenset(
    {b"age", b"content-length", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"}
)
# RFC 9111 §3.2, and what a 304 says of a body that it does not have.
_NOT_UPDATED: Final = frozenset(
    {b"content-encoding", b"content-length", b"content-range", b"content-type", b"set-cookie", b"set-cookie2"}
)


@dataclass(frozen=True, slots=True)
class StoringRules:
    """What an operator says about storing.

    Attributes:
        statuses: Of which responses are stored, if they may.
        freshness: How long they live if they do not say so.
        stale_while_revalidate_s: What holds for responses that do not say so.
        stale_if_error_s: The same.
        vary_ignored: Fields that responses may vary by without being told apart.
        strip_set_cookie: Store what sets cookies, without these.
        cookies_harmless: Requests' cookies are part of the key, or said not to matter.
        ended_by_events: Events may end what is stored.
    """

    statuses: frozenset[int] = frozenset(DEFAULT_STATUSES)
    freshness: FreshnessRules = field(default_factory=FreshnessRules)
    stale_while_revalidate_s: float = 0.0
    stale_if_error_s: float = 0.0
    vary_ignored: frozenset[bytes] = frozenset()
    strip_set_cookie: bool = False
    cookies_harmless: bool = False
    ended_by_events: bool = False


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a response is an answer to, and when; times in seconds.

    Attributes:
        authorized: The request had credentials.
        cookies: It had cookies.
        requested_at: When it was sent on, since 1970.
        received_at: When the response's head came, since 1970.
        now: The same on the monotonic clock.
    """

    authorized: bool
    cookies: bool
    requested_at: float
    received_at: float
    now: float


def sort_fields(parts: list[bytes]) -> dict[bytes, tuple[bytes, ...]]:
    """The values of those fields of a response that matter, by name."""
    found: dict[bytes, tuple[bytes, ...]] = {}
    for part in parts[1:]:
        name = field_name(part)
        if name in _MATTERS:
            found[name] = (*found.get(name, ()), field_value(part))
    return found


def build_entry(status: int, parts: list[bytes], told: Circumstances, rules: StoringRules) -> Entry | str:
    """The entry to store, without keys and body, or why there is none.

    Args:
        status: The response's status; the request was a GET.
        parts: Its status line and field lines, as they came from upstream, Content-Length left out.
        told: What it is an answer to.
        rules: The operator's.
    """
    fields = sort_fields(parts)
    lines = fields.get(b"cache-control")
    directives = read_response_directives(None if lines is None else b", ".join(lines))
    if status not in rules.statuses or status == 206:
        return "status"
    if directives.no_store and not (directives.must_understand and status in DEFAULT_STATUSES):
        return "no-store"
    if directives.private:
        return "private"
    if b"content-range" in fields:
        return "partial"
    if not rules.strip_set_cookie and not _COOKIES.isdisjoint(fields):
        return "set-cookie"
    vary = read_vary(fields.get(b"vary", ()), rules.vary_ignored)
    if vary is None:
        return "vary"
    for_authorized = directives.for_authorized
    if told.authorized and not for_authorized:
        return "authorization"
    for_cookies = directives.public or directives.s_maxage is not None or b"cookie" in vary or rules.cookies_harmless
    if told.cookies and not for_cookies:
        return "cookie"
    groups = read_groups(fields.get(b"cache-groups", ())) if rules.ended_by_events else None
    if groups is None and rules.ended_by_events:
        return "cache-groups"
    entry = Entry()
    entry.groups = groups
    entry.status = status
    entry.vary = vary
    entry.for_authorized = for_authorized
    entry.for_cookies = for_cookies
    entry.etag = _only(fields.get(b"etag"))
    if entry.etag is not None and not is_etag(entry.etag):
        entry.etag = None
    entry.last_modified = _only(fields.get(b"last-modified"))
    given_date = read_date(fields[b"date"][0]) if len(fields.get(b"date", ())) == 1 else None
    date = told.received_at if given_date is None else given_date
    expires = fields.get(b"expires", ())
    lifetime, explicit = lifetime_of(status, directives, expires, entry.last_modified, date, rules.freshness)
    age = initial_age(fields.get(b"age", ()), date, told.requested_at, told.received_at)
    entry.lifetime_s = lifetime
    entry.born_at = told.now - age
    entry.no_cache = directives.no_cache
    entry.must_revalidate = directives.must_revalidate
    entry.immutable = directives.immutable
    _set_staleness(entry, directives.stale_while_revalidate, directives.stale_if_error, rules)
    if directives.s_maxage is not None:
        # It says proxy-revalidate (RFC 9111 §5.2.2.10): an operator's wish for stale responses does not stand against
        # it, but what the same field says beside it does, since that would have no meaning otherwise.
        entry.stale_while_revalidate_s = float(directives.stale_while_revalidate or 0)
        entry.stale_if_error_s = float(directives.stale_if_error or 0)
    if (entry.no_cache or lifetime <= age) and not _is_of_use(entry, told.now):
        return "not-fresh" if explicit or entry.no_cache else "no-lifetime"
    entry.head = _kept_head(parts, given_date is None, told.received_at)
    return entry


def _set_staleness(entry: Entry, while_revalidate: int | None, if_error: int | None, rules: StoringRules) -> None:
    if entry.must_revalidate or entry.no_cache:
        entry.stale_while_revalidate_s = entry.stale_if_error_s = 0.0
        return
    entry.stale_while_revalidate_s = rules.stale_while_revalidate_s if while_revalidate is None else while_revalidate
    entry.stale_if_error_s = rules.stale_if_error_s if if_error is None else if_error


def _is_of_use(entry: Entry, now: float) -> bool:
    """Whether it is worth keeping although it is not fresh."""
    if entry.can_be_validated:
        return True
    return not entry.no_cache and entry.lifetime_s > 0 and not entry.is_useless(now)


def _only(values: tuple[bytes, ...] | None) -> bytes | None:
    return values[0] if values is not None and len(values) == 1 else None


def _kept_head(parts: list[bytes], dateless: bool, received_at: float) -> bytes:
    kept = [parts[0]]
    if dateless:
        # RFC 9110 §6.6.1: a recipient that keeps a response without a date says when it came.
        kept.append(b"date: " + write_date(received_at) + b"\r\n")
        kept += [part for part in parts[1:] if field_name(part) not in _NOT_KEPT and field_name(part) != b"date"]
    else:
        kept += [part for part in parts[1:] if field_name(part) not in _NOT_KEPT]
    return b"".join(part for part in kept if field_name(part) not in _COOKIES)


def frame(entry: Entry, body: bytes) -> None:
    """Give an entry its body."""
    entry.body = body
    if entry.status != 204:
        entry.head += b"content-length: %d\r\n" % len(body)


def updated_parts(entry: Entry, news: list[bytes]) -> list[bytes]:
    """The head of a stored response, with what a 304 says put in place of what it said (RFC 9111 §3.2).

    Cookies that the 304 sets are not in it: they are its client's.
    """
    fresh = [part for part in news[1:] if field_name(part) not in _NOT_UPDATED]
    replaced = {field_name(part) for part in fresh} | {b"age", b"content-length"}
    kept = [part for part in entry.parts() if field_name(part) not in replaced]
    return kept + fresh


def groups_in(parts: list[bytes]) -> tuple[bytes, ...] | None:
    """The groups of a response; `None` if they cannot be read."""
    return read_groups([field_value(part) for part in parts[1:] if field_name(part) == b"cache-groups"])


def cookies_in(parts: list[bytes]) -> list[bytes]:
    """The lines that set cookies."""
    return [part for part in parts[1:] if field_name(part) in _COOKIES]
