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
from toska_gateway.worker.policies import BodyStage, Shaper, Waits, end_of, through

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange

SLICE: Final = 64 * 1024
"""So much of a body passes its stages in one turn of the loop: compressing takes 20 ms a MiB (docs/performance.md)."""
_BODILESS: Final = frozenset({204, 304})


class Shaping:
    """What only a response has that shapers look at.

    Attributes:
        head: Of the response, as the shapers have made it.
        last: The whole body was here with the head, and is short enough to pass in one go.
        complete: No more of the body will come.
        paused: The upstream is not read because of it.
        waits: A shaper has not decided yet.
        turn: The next slice's, if there is more than one.
    """

    __slots__ = ("_bodiless", "_pieces", "_shapers", "_stages", "complete", "head", "last", "paused", "turn", "waits")

    def __init__(self, head: ResponseHead, body: bytes, shapers: Sequence[Shaper], *, last: bool) -> None:
        self.head = head
        self.last = last and len(body) <= SLICE
        self.complete = False
        self.paused = False
        self.waits = False
        self.turn: asyncio.Handle | None = None
        self._bodiless = False
        self._shapers: Iterator[Shaper] = iter(shapers)
        self._stages: list[BodyStage] = []
        self._pieces: deque[bytes] = deque()
        self.add(body)

    def go_on(self, exchange: "Exchange") -> bool:
        """Pass the shapers that are left; false if one of them waits.

        Raises:
            Instead: One of them has something else answered.
        """
        self.waits = False
        for shaper in self._shapers:
            try:
                self.pass_through(shaper.shape(exchange, self.head))
            except Waits:
                self.waits = True
                return False
        self._bodiless = exchange.is_head or self.head.status in _BODILESS
        return True

    def pass_through(self, stage: BodyStage | None) -> None:
        """Have the body pass through a stage, after those that are there."""
        if stage is not None:
            self._stages.append(stage)

    @property
    def stages(self) -> bool:
        """Whether there is anything for the body to pass through."""
        return bool(self._stages)

    @property
    def busy(self) -> bool:
        """Whether something that has come is not passed on yet."""
        return self.waits or bool(self._pieces)

    def frame(self) -> bytes:
        """All are passed: correct the head's framing; returns the body, if all of it can be passed on with the head."""
        head = self.head
        resized = any(stage.resizes for stage in self._stages)
        if self.last and not self._bodiless:
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

    def add(self, payload: bytes) -> None:
        """Take what comes next of the body."""
        if len(payload) <= SLICE:
            if payload:
                self._pieces.append(payload)
            return
        self._pieces.extend(payload[start : start + SLICE] for start in range(0, len(payload), SLICE))

    def step(self) -> bytes:
        """What the next slice becomes, if there is one.

        Raises:
            Instead: It must not be passed on.
        """
        return through(self._stages, self._pieces.popleft()) if self._pieces else b""

    def end(self) -> bytes:
        """What is left of a body that is complete.

        Raises:
            Instead: It must not be passed on.
        """
        stages, self._stages = self._stages, []
        rest = end_of(stages)
        return b"" if self._bodiless else rest

    def abort(self) -> None:
        """Nothing more is passed on."""
        if self.turn is not None:
            self.turn.cancel()
            self.turn = None
        self._pieces.clear()
        stages, self._stages = self._stages, []
        for stage in stages:
            stage.abort()
