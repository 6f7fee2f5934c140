"""The processes that share one instance: the workers of one uvicorn, or several servers on one port.

They are one entry in the registry. Two files in a folder of their own, locked by `flock`, tell them about each other,
and the kernel releases a lock however its holder ends:

    members   locked shared by every worker; who can have it alone is the last one, or the first
    leader    locked by one worker, which registers and renews; another takes over when it is gone
"""

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

_JOIN_POLL_S = 0.02


class WorkerGroup:
    """This process's membership among the workers of an instance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._members = _open(folder / "members")
        self._leader = _open(folder / "leader")
        self._leads = False

    @classmethod
    async def join(cls, instance_id: str) -> "WorkerGroup":
        """Become a member; the first one clears away what an earlier generation left.

        Waits while the last member of that generation is revoking the registration.
        """
        group = cls(_folder_of(instance_id))
        if _try_lock(group._members, fcntl.LOCK_EX):
            group._clear()
        while not _try_lock(group._members, fcntl.LOCK_SH):  # noqa: ASYNC110 - the other side is another process
            await anyio.sleep(_JOIN_POLL_S)
        return group

    def lead(self) -> bool:
        """Whether this worker is, or now became, the one that keeps the registration."""
        self._leads = self._leads or _try_lock(self._leader, fcntl.LOCK_EX)
        return self._leads

    @asynccontextmanager
    async def leaving(self) -> AsyncGenerator[bool]:
        """End the membership; yields whether this was the last member.

        While the last one is inside, nobody can join: what it revokes cannot be a newcomer's registration.
        """
        # Turning a shared lock into an exclusive one gives the shared one up first (flock(2)), so of two that leave at
        # the same moment one is the last.
        last = _try_lock(self._members, fcntl.LOCK_EX)
        if last:
            self._clear()
        try:
            yield last
        finally:
            self.close()

    def _clear(self) -> None:
        for leftover in self.folder.glob("worker-*"):
            leftover.unlink(missing_ok=True)

    def close(self) -> None:
        """Give up both locks."""
        self._leads = False
        for descriptor in (self._leader, self._members):
            if descriptor >= 0:
                os.close(descriptor)
        self._leader = self._members = -1


class LoneWorker:
    """A group of one, for where no lock can be had, such as a container with a read-only file system."""

    def lead(self) -> bool:
        """Always."""
        return True

    @asynccontextmanager
    async def leaving(self) -> AsyncGenerator[bool]:
        """Always the last."""
        yield True


def _folder_of(instance_id: str) -> Path:
    # A digest, because the path of a Unix socket in it may have no more than 107 bytes.
    folder = runtime_folder() / hashlib.sha256(instance_id.encode()).hexdigest()[:16]
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def runtime_folder() -> Path:
    """A folder for this user's sockets and locks that ends with the machine's uptime, mode 0700.

    Raises:
        PermissionError: It exists and somebody else could meddle with it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        folder = Path(base) / "toska"
    else:
        folder = Path(tempfile.gettempdir()) / f"toska-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a folder of mode 0700 that belongs to you; remove it")
    return folder


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
