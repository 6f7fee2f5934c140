"""Becomes Envoy, once the system has been told to end it with its parent: `python launch.py PARENT ENVOY ARGUMENT…`.

Run as a script, for it needs nothing of ours.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by Envoy."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the gateway has ended")
    os.execv(command[0], command)  # noqa: S606 - whoever started us says what


if __name__ == "__main__":
    main()
