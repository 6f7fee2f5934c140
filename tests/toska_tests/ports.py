"""Ports that are free now, below the range from which the kernel picks for outgoing connections."""

import os
import random
import socket

_OURS = range(20000, 32000)
_random = random.Random(os.getpid())
_given: set[int] = set()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether `host:port` can be bound at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> int:
    """First of `count` consecutive free ports, for `--ports-from`; none that was given before, bound or not.

    Many ports are only registered and never bound, and whoever registers a second time evicts the first.
    """
    for attempt in range(2000):
        if attempt == 1000:
            _given.clear()  # nearly all were given
        first = _random.randrange(_OURS.start, _OURS.stop - count)
        wanted = range(first, first + count)
        if _given.isdisjoint(wanted) and all(is_free(port) for port in wanted):
            _given.update(wanted)
            return first
    raise AssertionError(f"found no {count} consecutive free ports")


def free_port() -> int:
    """One free port."""
    return free_ports(1)
