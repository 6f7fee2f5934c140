"""SIGTERM and SIGINT, heard before the server hears them: leave the mesh first, stop serving afterwards.

uvicorn closes its listener as soon as its own handler has run, with requests still on their way here. So ours stands in
front of it, and hands the signal on when the app has left.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], Any]


class SignalChain:
    """Hands the first signal to `on_stop`, in the event loop, and to the earlier handler when `forward` is called."""

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self._earlier: dict[int, Any] = {}
        self._received: list[int] = []
        self._forwarded = False

    def install(self) -> bool:
        """Stand in front of the present handlers; `False` where Python allows none (outside the main thread)."""
        if threading.current_thread() is not threading.main_thread():
            return False
        for number in SIGNALS:
            present = signal.getsignal(number)
            if present is not signal.SIG_IGN:
                self._earlier[number] = present
                signal.signal(number, self._receive)
        return True

    def remove(self) -> None:
        """Put the earlier handlers back, where nobody else has put others since."""
        for number, handler in self._earlier.items():
            if signal.getsignal(number) == self._receive:
                signal.signal(number, handler)

    def forward(self) -> None:
        """Hand on what was received."""
        self._forwarded = True
        for number in self._received[:1]:
            self._hand_on(number, None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if self._forwarded:
            self._hand_on(number, frame)
        elif len(self._received) == 1:
            self._loop.call_soon_threadsafe(self._on_stop)
        elif self._received.count(signal.SIGINT) > 1:
            # Ctrl-C again: whoever sits there does not want to wait. (Under --workers and --reload one Ctrl-C arrives
            # as SIGINT from the terminal and as SIGTERM from the parent; that is not impatience.)
            self._forwarded = True
            self._hand_on(signal.SIGINT, frame)
            self._hand_on(signal.SIGINT, frame)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        handler = self._earlier.get(number)
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
