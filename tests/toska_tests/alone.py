"""Tests that need the machine to themselves, where several workers of pytest-xdist share it.

A test that is marked `alone` runs while no other worker does: it measures time or memory, and what it measures would be
the others' as well. All other tests hold a lock together; that one holds it by itself. Who waits for it alone closes
the door first, or the others, who come and go, would keep it waiting for ever.
"""

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """One worker's side of it.

    Args:
        lock: A file that all workers have; it is only opened, and the kernel keeps who holds it.
        door: Another one.
    """

    def __init__(self, lock: Path, door: Path) -> None:
        # Once and for all: a checkout replaces files, and a run goes on meanwhile.
        self._lock, self._door = lock.open("rb"), door.open("rb")

    @contextmanager
    def turn(self, *, alone: bool) -> Generator[None]:
        """Wait for the others to end what needs the machine alone, or, `alone`, for all others."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let the files go."""
        self._lock.close()
        self._door.close()
