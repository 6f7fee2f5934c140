"""Who is connected, what they run, and what they refused: for people to look at, and for metrics."""

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime

from toska_router.xds.exchange import Node, Refusal
from toska_router.xds.types import MAKE_ORDER

MAX_REMEMBERED = 100
_KNOWN = frozenset(MAKE_ORDER)


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One type on one stream.

    Attributes:
        type_url: The type.
        wildcard: Whether it asks for all resources.
        names: How many it asks for by name.
        accepted_version: The newest version that it took over; empty before the first.
        up_to_date: Whether it has answered everything there is, be it by a refusal.
        refusals: What it refuses at present.
    """

    type_url: str
    wildcard: bool
    names: int
    accepted_version: str
    up_to_date: bool
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """One stream."""

    node: Node
    group: str
    peer: str
    incremental: bool
    aggregated: bool
    connected_at: datetime
    types: tuple[TypeStatus, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal, with who and when; kept also when the client is gone."""

    node: Node
    at: datetime
    refusal: Refusal


@dataclass(slots=True)
class Tally:
    """Counts since the start, by type URL, and the latest refusals."""

    sent: Counter[str] = field(default_factory=Counter[str])
    accepted: Counter[str] = field(default_factory=Counter[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    refusals: deque[Refused] = field(default_factory=lambda: deque[Refused](maxlen=MAX_REMEMBERED))

    def count(self, counter: Counter[str], type_url: str) -> None:
        """Count one; types that clients make up would grow without a bound."""
        if type_url in _KNOWN:
            counter[type_url] += 1
