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


def share_of(ports: range, worker: int, workers: int) -> range:
    """The part of `ports` for one of several processes that test beside one another, each of which counts alone."""
    each = len(ports) // workers
    return ports[worker * each : (worker + 1) * each]


def free_ports(count: int) -> int:
    """First of `count` consecutive free ports, for `--ports-from`; none that was given before, bound or not.

    Many ports are only registered and never bound, and whoever registers a second time evicts the first.
    """
    for attempt in range(2000):
        if attempt == 1000:
            _given.clear()  # nearly all were given
        first = _random.randrange(_share.start, _share.stop - count)
        wanted = range(first, first + count)
        if _given.isdisjoint(wanted) and all(is_free(port) for port in wanted):
            _given.update(wanted)
            return first
    raise AssertionError(f"found no {count} consecutive free ports")


def free_port() -> int:
    """One free port."""
    return free_ports(1)


def _own_share() -> range:
    """pytest-xdist tells its workers their names, gw0 and so on, and how many there are."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return share_of(_OURS, worker, max(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), worker + 1))


_share = _own_share()
