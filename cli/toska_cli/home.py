"""One mesh for each state folder: the lock that a running `toska up` holds on its home.

The kernel drops the lock with its holder, so a crash leaves nothing to clean up, and a held lock proves that the
process id written in it is the mesh's and not a later stranger's.
"""

import fcntl
import os
import time
from pathlib import Path

from toska_common.errors import ConfigurationError

LOCK_NAME = "lock"


class HomeLock:
    """The exclusive claim of this process on a home."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, home: Path) -> "HomeLock":
        """Claim `home`.

        Raises:
            ConfigurationError: Another mesh runs there; names its process.
        """
        descriptor = os.open(home / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _lock(descriptor):
            pid = _read_pid(descriptor)
            os.close(descriptor)
            raise ConfigurationError(
                f"a mesh already runs on {home} (pid {pid or 'unknown'}); stop it with `toska down`, "
                "or start this one with another --home and --ports-from"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def close(self) -> None:
        """Give the home up."""
        os.close(self._descriptor)


def find_holder(home: Path) -> int | None:
    """The process that runs a mesh on `home`; `None` if none does."""
    try:
        descriptor = os.open(home / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor)
    finally:
        os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool:
    for _ in range(10):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)  # `find_holder` of a `toska status` takes the lock for an instant
        else:
            return True
    return False


def _read_pid(descriptor: int) -> int | None:
    try:
        return int(os.pread(descriptor, 32, 0))
    except ValueError:  # its holder has not written it yet
        return None
