"""Ending a mesh on a signal, in time: politely at the first, at once at the second or when it takes too long."""

import os
import signal
import sys
import threading
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus

STOP_WITHIN_S = 2.9
"""Ctrl-C promises three seconds; this is when patience ends."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def stop_on_signal(
    stop: Callable[[], None], abandon: Callable[[], None], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Call `stop` at the first signal; at the second, or if the process is still there later, `abandon` and exit."""
    with anyio.open_signal_receiver(*_SIGNALS) as signals:
        task_status.started()
        asked = False
        async for number in signals:
            if asked:
                _exit(abandon, 128 + number)
            asked = True
            # A thread, since what keeps the process from ending may be its event loop.
            timer = threading.Timer(STOP_WITHIN_S, _exit_late, (abandon,))
            timer.daemon = True
            timer.start()
            stop()


def _exit_late(abandon: Callable[[], None]) -> None:
    sys.stderr.write(f"toska: not everything stopped within {STOP_WITHIN_S} s; ending the rest\n")
    _exit(abandon, 1)


def _exit(abandon: Callable[[], None], code: int) -> None:
    try:
        abandon()
    finally:
        os._exit(code)
