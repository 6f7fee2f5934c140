"""Where an Envoy's sockets and its configuration are, and that nothing of it stays behind.

The folder is not in the home, since the path of a socket has to be short. Whoever made it holds a lock in it, which the
system lets go of with the process, however that ends: the next gateway takes away what no lock is held of, of its own
user, and never what it cannot tell to be left over. Envoy itself leaves a piece of shared memory behind with each
family of processes, also when it ends in order; those are written down in the folder and go with it.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

PREFIX: Final = "toska-envoy-"
_LOCK: Final = "owner.lock"
_FAMILIES: Final = "families"
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where the system has it, and not for files of ours
_PER_FAMILY: Final = 10
"""By this Envoy multiplies a family's number in the name of its shared memory."""


class RuntimeFolder:
    """A new folder of this process's own; what others left behind is taken away first."""

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Locked before it has its name: a sweep never finds it without its owner.
        passing = self.path / f"{_LOCK}.new"
        self._lock = os.open(passing, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        passing.rename(self.path / _LOCK)

    def note(self, family: int) -> None:
        """Remember a family of Envoys, whose shared memory goes with the folder."""
        with (self.path / _FAMILIES).open("a", encoding="ascii") as file:
            file.write(f"{family}\n")

    def remove(self) -> None:
        """Take it away; no process uses it any more."""
        _remove(self.path)
        os.close(self._lock)


def sweep(parent: Path | None = None) -> None:
    """Take away what gateways of this user left behind whose process is gone."""
    for folder in _left_over(parent or Path(tempfile.gettempdir())):
        log.info("envoy_folder_removed", folder=str(folder))
        _remove(folder)


def _left_over(parent: Path) -> Iterator[Path]:
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        lock = _lock_of(folder)
        if lock is None:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        except OSError:
            pass  # its owner lives
        finally:
            os.close(lock)


def _lock_of(folder: Path) -> int | None:
    """The lock of a folder that is this user's alone; `None` of anything else."""
    try:
        status = folder.lstat()
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if not private or status.st_uid != os.geteuid():
            return None
        return os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return None


def _remove(folder: Path) -> None:
    try:
        families = (folder / _FAMILIES).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        families = []
    for family in families:
        if family.isdecimal():
            _forget_memory(_SHARED_MEMORY / f"envoy_shared_memory_{int(family) * _PER_FAMILY}")
    shutil.rmtree(folder, ignore_errors=True)


def _forget_memory(file: Path) -> None:
    try:
        if file.lstat().st_uid == os.geteuid():
            file.unlink()
    except OSError:
        pass  # there is none, or another system keeps it elsewhere
