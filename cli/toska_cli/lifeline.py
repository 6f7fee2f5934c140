"""Children that end with their parent, however it ends.

The parent keeps the write end of a pipe and never writes: the kernel closes it even after SIGKILL, and the child that
reads it exits. Linux besides signals the child by itself (PR_SET_PDEATHSIG), which also reaches one whose threads are
stuck.
"""

import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def exit_at_end_of(descriptor: int) -> None:
    """Exit this process at once when the other end of the pipe `descriptor` is closed."""

    def wait() -> None:
        while os.read(descriptor, 64):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent, whose process id is `parent`, is gone; Linux only."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)
