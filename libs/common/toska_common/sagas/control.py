"""What others want of a saga that runs here, and the moment at which its time is over."""

from collections.abc import Callable
from datetime import datetime

import anyio

from toska_common.clock import now_utc


class Control:
    """Of one run of a saga: tells whether it is to turn back, and interrupts what it waits for."""

    def __init__(self, deadline_at: datetime | None, *, cancelled: bool, now: Callable[[], datetime] = now_utc) -> None:
        self.cancelled = cancelled
        self._deadline_at = deadline_at
        self._now = now
        self._action: anyio.CancelScope | None = None
        self._pause: anyio.CancelScope | None = None
        self._undoing = False

    def cancel(self) -> None:
        """Somebody wants it cancelled: it turns back at once, in the middle of an action if need be."""
        self.cancelled = True
        if self._action is not None:
            self._action.cancel()
        if not self._undoing:
            self.wake()

    def wake(self) -> None:
        """End a pause."""
        if self._pause is not None:
            self._pause.cancel()

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self._deadline_at is not None and self._now() >= self._deadline_at

    def action(self, seconds: float) -> anyio.CancelScope:
        """A scope that ends after these seconds, with the saga's time, or when it is cancelled."""
        self._action = anyio.CancelScope(deadline=anyio.current_time() + min(seconds, self._left_s()))
        if self.cancelled:
            self._action.cancel()
        return self._action

    async def pause(self, seconds: float, *, undoing: bool = False) -> None:
        """Wait, going forwards no longer than the saga has time and nobody wants it cancelled."""
        self._undoing = undoing
        with anyio.move_on_after(seconds if undoing else min(seconds, self._left_s())) as self._pause:
            if undoing or not self.cancelled:
                await anyio.sleep_forever()
        self._pause = None

    def _left_s(self) -> float:
        return (
            float("inf") if self._deadline_at is None else max(0.0, (self._deadline_at - self._now()).total_seconds())
        )
