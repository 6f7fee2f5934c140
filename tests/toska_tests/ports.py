"""Ports that are free now, below the range from which the kernel picks for outgoing connections."""

import os
import random
import socket

_LOWEST, _HIGHEST = 20000, 32000
_random = random.Random(os.getpid())


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
    """First of `count` consecutive free ports, for `--ports-from`."""
    for _ in range(200):
        first = _random.randrange(_LOWEST, _HIGHEST - count)
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError(f"found no {count} consecutive free ports")


def free_port() -> int:
    """One free port."""
    return free_ports(1)
