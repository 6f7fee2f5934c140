"""Appends lines to a file that other processes append to as well, from a thread: a disk may be slow, full or gone, and
requests must not notice.

Lines are written whole. A write happens under a lock of the file, and one that stops halfway is cut back to its last
whole line; so lines of several workers never run into each other. Before each write the path is looked at: when it
leads to another file, or to none, it is opened anew, which is all that rotation needs.
"""

import contextlib
import os
import stat
import threading
from fcntl import LOCK_EX, LOCK_UN, lockf
from pathlib import Path
from queue import SimpleQueue
from select import select
from typing import Final

MAX_WAITING: Final = 8 * 1024 * 1024
"""Bytes that may wait to be written; what comes beyond is dropped."""
STDOUT: Final = "stdout"
_MODE: Final = 0o640
_CLOSED: Final = -1


def place_of(path: str, folder: str) -> str:
    """Where a log goes: a relative path begins in `folder`."""
    return path if path == STDOUT else str(Path(folder) / path)


class LogWriter:
    """One file, and the thread that writes to it.

    Attributes:
        trouble: Why lines are being dropped; empty while they are not.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.trouble = ""
        self._taken = self._refused = 0  # bytes and lines; only the loop's thread writes these, ...
        self._done = self._lost = 0  # ... and only the writer's these, so neither needs a lock
        self._full = False
        self._told = 0
        self._descriptor = _CLOSED
        self._file = (0, 0)  # device and inode
        self._queue: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None  # from the first line on

    def put(self, lines: list[bytes], size: int) -> None:
        """Have whole lines of `size` bytes together written, or dropped if too much waits already."""
        if self._taken - self._done + size > MAX_WAITING:
            self._refused += len(lines)
            self._full = True
            return
        self._full = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()
        self._taken += size
        self._queue.put(lines)

    def take_dropped(self) -> int:
        """How many lines were dropped since the last time."""
        dropped = self._refused + self._lost
        new, self._told = dropped - self._told, dropped
        return new

    def problem(self) -> str:
        """Why lines are being dropped; empty while they are not."""
        return self.trouble or ("it takes lines more slowly than they come" if self._full else "")

    def close(self, patience_s: float) -> None:
        """Write what waits, for at most so long."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(patience_s)

    # -- the thread's side

    def _run(self) -> None:
        while (lines := self._queue.get()) is not None:
            data = b"".join(lines)
            try:
                self._append(data)
                self.trouble = ""
            except OSError as error:
                self.trouble = error.strerror or str(error)
            finally:
                self._done += len(data)
        if self._descriptor > 2:
            os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        try:
            descriptor = self._open()
        except OSError:
            self._lost += data.count(b"\n")
            raise
        # Not every file can be locked, such as a terminal; there nobody minds the order of two lines.
        with contextlib.suppress(OSError):
            lockf(descriptor, LOCK_EX)
        try:
            self._write(descriptor, data)
        finally:
            with contextlib.suppress(OSError):
                lockf(descriptor, LOCK_UN)

    def _open(self) -> int:
        """The descriptor of what the path leads to now."""
        if self.path == STDOUT:
            return 1
        with contextlib.suppress(FileNotFoundError):
            there = Path(self.path).stat()
            if self._descriptor != _CLOSED and (there.st_dev, there.st_ino) == self._file:
                return self._descriptor
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        opened = os.open(self.path, flags, _MODE)
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
        found = os.fstat(opened)
        self._descriptor, self._file = opened, (found.st_dev, found.st_ino)
        return opened

    def _write(self, descriptor: int, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                try:
                    written += os.write(descriptor, data[written:] if written else data)
                except BlockingIOError:  # somebody who shares the other end of it made it so
                    select([], [descriptor], [])
        except OSError:
            whole = data.rfind(b"\n", 0, written) + 1
            self._lost += data.count(b"\n", whole)
            if written > whole:
                self._cut_back(descriptor, written - whole)
            raise

    def _cut_back(self, descriptor: int, size: int) -> None:
        """Take the beginning of a line off the end again; the lock is ours."""
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_END) - size)
