"""How old a response is, and how long it is fresh (RFC 9111 §4.2). Pure: whoever asks says what the time is."""

from dataclasses import dataclass
from typing import Final

from toska_gateway.worker.cache.dates import read_date
from toska_gateway.worker.cache.directives import MAX_SECONDS, ResponseDirectives, read_seconds

HEURISTIC: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses whose responses may be fresh without saying so (RFC 9110 §15.1), but for 206, which is not stored."""
_BY_DEFAULT: Final = frozenset({200, 203, 204, 300, 301, 308})
"""Of these, those that `default_ttl` is for: an error that says nothing of its life is not kept."""


@dataclass(frozen=True, slots=True)
class FreshnessRules:
    """What an operator adds to what responses say of themselves.

    Attributes:
        default_ttl_s: Life of a response that says nothing of it.
        heuristic_ratio: Share of its age at the last modification that such a response lives, if it gives that.
        heuristic_max_s: And no longer than this.
    """

    default_ttl_s: float = 0.0
    heuristic_ratio: float = 0.0
    heuristic_max_s: float = 86400.0


def lifetime_of(
    status: int,
    directives: ResponseDirectives,
    expires: tuple[bytes, ...],
    last_modified: bytes | None,
    date: float,
    rules: FreshnessRules,
) -> tuple[float, bool]:
    """Seconds for which a response is fresh in a shared cache, and whether it says so itself (RFC 9111 §4.2.1).

    Args:
        status: Its status.
        directives: What its Cache-Control says.
        expires: Its Expires lines.
        last_modified: Its Last-Modified.
        date: When it was made, in seconds since 1970.
        rules: What holds if it says nothing.
    """
    if directives.s_maxage is not None:
        return float(directives.s_maxage), True
    if directives.max_age is not None:
        return float(directives.max_age), True
    if expires:
        # "0" and other things that are no date are in the past (§5.3), and so are two dates that contradict each other.
        dates = [read_date(value) for value in expires]
        return max(0.0, min(date if one is None else one for one in dates) - date), True
    if status not in HEURISTIC and not directives.public:
        return 0.0, False
    modified = read_date(last_modified) if last_modified is not None and rules.heuristic_ratio else None
    if modified is not None and status in HEURISTIC:
        return min(max(0.0, date - modified) * rules.heuristic_ratio, rules.heuristic_max_s), False
    return (rules.default_ttl_s if status in _BY_DEFAULT else 0.0), False


def initial_age(age: tuple[bytes, ...], date: float, requested_at: float, received_at: float) -> float:
    """The age of a response as it came in (RFC 9111 §4.2.3).

    Args:
        age: Its Age lines; what is no number counts as nothing, of several the greatest counts.
        date: When it was made, in seconds since 1970.
        requested_at: When it was asked for, by our clock, in seconds since 1970.
        received_at: When it came.
    """
    values = [read_seconds(part.strip(b" \t")) or 0 for line in age for part in line.split(b",")]
    apparent = max(0.0, received_at - date)
    corrected = max(values, default=0) + max(0.0, received_at - requested_at)
    return min(max(apparent, corrected), float(MAX_SECONDS))
