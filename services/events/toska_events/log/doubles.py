"""Doubles of events that were stored lately, told by source and id."""

import sqlite3
from collections.abc import Iterable

from toska_common.events.embedded.records import Publication, identity_of

REMEMBERED = 50_000
"""How many events back doubles are looked for; more than any publisher sends before it is confirmed."""


class Doubles:
    """Identities of the last events, the oldest first."""

    def __init__(self) -> None:
        self._recent: dict[bytes, None] = {}

    def leave_out(self, publications: Iterable[Publication]) -> dict[bytes, Publication]:
        """Those that are no doubles, by identity, in their order."""
        recent, fresh = self._recent, dict[bytes, Publication]()
        for event in publications:
            identity = identity_of(event.head)
            if identity not in recent and identity not in fresh:
                fresh[identity] = event
        return fresh

    def remember(self, identities: Iterable[bytes]) -> None:
        """These were stored."""
        self._recent.update(dict.fromkeys(identities))
        excess = len(self._recent) - REMEMBERED
        if excess > 1000:  # by and by, and not one for each event
            oldest = iter(self._recent)
            for identity in [next(oldest) for _ in range(excess)]:
                del self._recent[identity]

    def load(self, connection: sqlite3.Connection) -> None:
        """Read those of the last events."""
        newest = connection.execute("SELECT head FROM events ORDER BY offset DESC LIMIT ?", (REMEMBERED,)).fetchall()
        self._recent = {identity_of(head): None for (head,) in reversed(newest)}
