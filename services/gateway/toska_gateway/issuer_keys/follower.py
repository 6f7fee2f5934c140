"""One source's keys through time: looked for when they are due, and sooner when a worker misses one.

    none ──read──▶ fresh ──cannot be had──▶ stale (the last good keys stay) ──read──▶ fresh

Whoever asks with tokens that nobody has signed must not make us hammer the keys' server: after a look in vain the next
may come a second later, then two, and so on up to half a minute; a look that brings other keys sets that back.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import anyio
import structlog
from toska_common.clock import now_utc
from toska_common.contracts.gateway import IssuerKeys

from toska_gateway.issuer_keys.fetch import KeysUnavailable
from toska_gateway.issuer_keys.readers import KeyReader, ReadKeys
from toska_gateway.issuer_keys.sources import KeySource

log = structlog.get_logger(__name__)

PATIENCE_S: Final = 2.0
"""A look that may begin within this time is worth waiting for."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0

Answer = Callable[[dict[str, Any]], None]
"""Takes the message for a worker that has asked."""


class KeyFollower:
    """Follows one source.

    Args:
        source: Which.
        reader: Reads it.
        on_change: Called with the message for all workers when keys change, or when they become fresh or stale.
    """

    def __init__(self, source: KeySource, reader: KeyReader, on_change: Callable[[dict[str, Any]], None]) -> None:
        self.source = source
        self.found: ReadKeys | None = None
        self.read_at: datetime | None = None
        self.problem = "not read yet"
        self._reader = reader
        self._on_change = on_change
        self._answers: list[Answer] = []
        self._asked = anyio.Event()
        self._pause = _FIRST_PAUSE_S
        self._allowed_at = 0.0
        self._due_at = 0.0

    @property
    def status(self) -> IssuerKeys:
        """How it is."""
        return IssuerKeys(
            source=self.source.title,
            keys=len(self.found.content.keys) if self.found else 0,
            read_at=self.read_at,
            problem=self.problem,
        )

    def message(self, *, quiet_s: float | None = None) -> dict[str, Any]:
        """What a worker is told; with `quiet_s` as an answer: for so long it need not ask again."""
        found = self.found
        return {
            "op": "keys",
            "source": self.source.name,
            "version": found.version if found else "",
            "keys": [dict(key) for key in found.content.keys] if found else [],
            "fresh": not self.problem,
            "answer": quiet_s is not None,
            "quiet_s": quiet_s or 0.0,
        }

    def start_with(self, found: ReadKeys, read_at: datetime) -> None:
        """Serve what was read in another life, until it can be read anew."""
        self.found, self.read_at = found, read_at

    def want(self, answer: Answer) -> None:
        """A worker misses a key: look for it, if that may be now or soon, and then answer."""
        wait = self._next_look_in()
        if wait > PATIENCE_S:
            answer(self.message(quiet_s=wait))
            return
        self._answers.append(answer)
        self._asked.set()

    async def run(self) -> None:
        """Follow the source for ever."""
        while True:
            await self._until_wanted()
            await self.look()

    async def _until_wanted(self) -> None:
        with anyio.move_on_after(max(0.0, self._due_at - anyio.current_time())):
            await self._asked.wait()
            await anyio.sleep(self._next_look_in())

    async def look(self) -> None:
        """Read the source, and tell whoever is concerned; what cannot be had leaves everything as it was."""
        # Who asks from here on may miss a key that this look is too early for: the next one is theirs.
        answers, self._answers, self._asked = self._answers, [], anyio.Event()
        began = anyio.current_time()
        before = self.message()
        try:
            read = await self._reader.read()
        except KeysUnavailable as error:
            self._failed(str(error), began)
        else:
            self._take(read, began, asked=bool(answers))
        self._allowed_at = began + self._pause
        now = self.message()
        if (before["version"], before["fresh"]) != (now["version"], now["fresh"]):
            self._on_change(now)
        wait = self._next_look_in()
        for answer in answers:
            answer(self.message(quiet_s=wait if wait > PATIENCE_S else 0.0))

    def _next_look_in(self) -> float:
        """Seconds until the next look, if somebody asks for it now."""
        return max(0.0, min(self._allowed_at, self._due_at) - anyio.current_time())

    def _take(self, read: ReadKeys | None, began: float, *, asked: bool) -> None:
        if self.problem and self.read_at is not None:
            log.info("issuer_keys_available_again", source=self.source.title)
        self.problem = ""
        self.read_at = now_utc()
        changed = read is not None and (self.found is None or read.version != self.found.version)
        if read is not None and changed:
            log.info("issuer_keys_changed", source=self.source.title, keys=len(read.content.keys))
            for note in read.content.notes:
                log.warning("issuer_key_unusable", source=self.source.title, reason=note)
        if changed or not asked:
            self._pause = _FIRST_PAUSE_S
        else:
            self._pause = min(_LONGEST_PAUSE_S, self._pause * 2)
        self.found = read or self.found
        self._due_at = began + (self._reader.period_s if read is None else read.again_in_s)

    def _failed(self, reason: str, began: float) -> None:
        if reason != self.problem:
            log.warning(
                "issuer_keys_unavailable",
                source=self.source.title,
                reason=reason,
                keys_kept=len(self.found.content.keys) if self.found else 0,
            )
        self.problem = reason
        self._due_at = began + min(self._pause, self._reader.period_s)
        self._pause = min(_LONGEST_PAUSE_S, self._pause * 2)
