"""Tests that need the machine to themselves, where several workers of pytest-xdist share it.

A test that is marked `alone` runs while no other worker does: it measures time or memory, and what it measures would be
the others' as well. All other tests hold a lock together; that one holds it by itself. Who waits for it alone closes
the door first, or the others, who come and go, would keep it waiting for ever.
"""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_LOCK = Path(__file__)
_DOOR = Path(__file__).with_name("__init__.py")


@contextmanager
def _held(path: Path, kind: int) -> Generator[None]:
    """The kernel forgets the lock with its holder, and nothing is left behind in the folder."""
    opened = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(opened, kind)
        yield
    finally:
        fcntl.flock(opened, fcntl.LOCK_UN)  # closing would not do: a child may have been forked meanwhile
        os.close(opened)


@contextmanager
def turn(*, alone: bool, lock: Path = _LOCK, door: Path = _DOOR) -> Generator[None]:
    """Wait for the others to end what needs the machine alone, or, `alone`, for all others."""
    opened = os.open(lock, os.O_RDONLY)
    try:
        with _held(door, fcntl.LOCK_EX):
            fcntl.flock(opened, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        fcntl.flock(opened, fcntl.LOCK_UN)
        os.close(opened)
