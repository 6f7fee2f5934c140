"""Keeps an operator's code from holding up the loop: what runs too long is interrupted where it is.

A call that does not return stops every connection of the worker, and nothing in the loop could notice. So the system's
timer does: a few times a second its signal looks at what runs. Python runs signal handlers in the main thread between
two steps of whatever it is doing, endless loops, sleeps and long regular expressions included, and an exception of the
handler comes out of there. Code that stays inside an extension for long cannot be stopped; its worker is replaced when
it does not answer its parent.
"""

import atexit
import signal
from time import perf_counter
from types import FrameType
from typing import Final

TICK_S: Final = 0.1
"""How often is looked; a call may take so much longer than its limit."""


class Overdue(BaseException):
    """The call has taken too long. No `Exception`, so that code which catches those does not keep it."""


class Guard:
    """What runs in the loop at the moment: one call at most, and none between.

    Attributes:
        limit_s: How long the call may take; set before `since`.
        since: When it began, by `perf_counter`; 0 if there is none.
    """

    __slots__ = ("limit_s", "since")

    def __init__(self) -> None:
        self.limit_s = 0.0
        self.since = 0.0

    def watch(self) -> bool:
        """Begin to look, if the process's timer is free; only the main thread can."""
        if signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
            return False
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
        # The interpreter takes its handlers away as it ends, and then a tick would be the process's death.
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.0)
        return True

    def _look(self, number: int, frame: FrameType | None) -> None:
        since = self.since
        if since and perf_counter() - since > self.limit_s:
            raise Overdue
