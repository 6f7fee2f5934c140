"""A response's way past the shapers of its route, and its body's way through what they made.

    head ──▶ shapers, in order; one may wait ──▶ written ──▶ body, piece by piece through the stages ──▶ end

What comes while a shaper waits, or faster than stages should work in one go, is kept here in order. The upstream is
not read meanwhile, so that is never more than one read.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from toska_gateway.worker.http1 import CHUNKED, ResponseHead
from toska_gateway.worker.policies import BodyStage, Instead, Shaper, Waits, end_of, through

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange

SLICE: Final = 64 * 1024
"""So much of a body passes its stages in one turn of the loop: compressing takes 20 ms a MiB (docs/performance.md)."""
_BODILESS: Final = frozenset({204, 304})


class Shaping:
    """What only a response has that shapers look at."""

    __slots__ = (
        "_bodiless", "_complete", "_head", "_last", "_paused", "_pieces", "_shapers", "_stages", "_turn", "_waits",
    )  # fmt: skip

    def __init__(self, head: ResponseHead, body: bytes, shapers: Sequence[Shaper], *, last: bool) -> None:
        self._head = head
        self._last = last and len(body) <= SLICE  # the whole body is here, and short enough to pass in one go
        self._complete = False  # no more of the body will come
        self._paused = False  # the upstream is not read because of it
        self._waits = False  # a shaper has not decided yet
        self._turn: asyncio.Handle | None = None  # the next slice's, if there is more than one
        self._bodiless = False
        self._shapers: Iterator[Shaper] = iter(shapers)
        self._stages: list[BodyStage] = []
        self._pieces: deque[bytes] = deque()
        self._add(body)

    @property
    def busy(self) -> bool:
        """Whether something that has come is not passed on yet."""
        return self._waits or bool(self._pieces)

    def go_on(self, exchange: "Exchange") -> None:
        """Pass the shapers that are left; then the head goes, and what is there of the body."""
        try:
            if not self._pass_shapers(exchange):
                self._pause(exchange)
                return
            body = self._frame()
        except Instead as instead:
            exchange.answer_instead(instead)
            return
        exchange.write_head(self._head, body, last=self._last)
        self._pass_pieces(exchange)

    def pass_through(self, stage: BodyStage | None) -> None:
        """Have the body pass through a stage, after those that are there."""
        if stage is not None:
            self._stages.append(stage)

    def take(self, exchange: "Exchange", payload: bytes) -> None:
        """Take what comes next of the body."""
        idle = not self.busy
        self._add(payload)
        if idle:
            self._pass_pieces(exchange)

    def complete(self, exchange: "Exchange") -> None:
        """The whole body has come."""
        idle = not self.busy
        self._complete = True
        if idle:
            self._pass_pieces(exchange)

    def abort(self) -> None:
        """Nothing more is passed on."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._pieces.clear()
        stages, self._stages = self._stages, []
        for stage in stages:
            stage.abort()

    def _pass_shapers(self, exchange: "Exchange") -> bool:
        self._waits = False
        for shaper in self._shapers:
            try:
                self.pass_through(shaper.shape(exchange, self._head))
            except Waits:
                self._waits = True
                return False
        self._bodiless = exchange.is_head or self._head.status in _BODILESS
        return True

    def _frame(self) -> bytes:
        """All are passed: correct the head's framing; returns the body, if all of it can be passed on with the head."""
        head = self._head
        resized = any(stage.resizes for stage in self._stages)
        if self._last and not self._bodiless:
            body = through(self._stages, b"".join(self._pieces)) + end_of(self._stages)
            self._pieces.clear()
            self._stages = []
            if resized:
                head.body_length = len(body)
                head.special[b"content-length"] = (b"%d" % len(body),)
            return body
        if resized:
            head.special.pop(b"content-length", None)
            if not self._bodiless:
                head.body_length = CHUNKED
        return b""

    def _add(self, payload: bytes) -> None:
        if len(payload) <= SLICE:
            if payload:
                self._pieces.append(payload)
            return
        self._pieces.extend(payload[start : start + SLICE] for start in range(0, len(payload), SLICE))

    def _pass_pieces(self, exchange: "Exchange") -> None:
        """Pass on a slice of what has come, and the others in turns of their own; then the end, if it has come too."""
        if exchange.shaping is not self:  # something else was answered
            return
        self._turn = None
        try:
            payload = through(self._stages, self._pieces.popleft()) if self._pieces else b""
            over = self._complete and not self.busy
            if over:
                payload += self._end()
        except Instead as instead:
            exchange.answer_instead(instead)
            return
        exchange.write_data(payload)
        if over:
            exchange.end()
        elif self.busy:
            self._pause(exchange)
            self._turn = exchange.plane.loop.call_soon(self._pass_pieces, exchange)
        else:
            self._catch_up(exchange)

    def _end(self) -> bytes:
        """What is left of a body that is complete."""
        stages, self._stages = self._stages, []
        rest = end_of(stages)
        return b"" if self._bodiless else rest

    def _pause(self, exchange: "Exchange") -> None:
        self._paused = True
        exchange.pause_upstream()

    def _catch_up(self, exchange: "Exchange") -> None:
        """All that has come is passed on: read the upstream again, by ourselves if there is nothing to pass through."""
        if self._paused:
            self._paused = False
            if not exchange.down.blocked:
                exchange.resume_upstream()
        if not self._stages:
            exchange.shaping = None
