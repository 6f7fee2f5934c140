"""Log files of one line per event, one file per service, bounded in size, shared by the processes of a service.

`logs/<service>.jsonl` turns to `<service>.jsonl.1` and so on when it is full. Several processes (a gateway and its
workers) write one file: each line is one appending write, and a process whose file was moved away opens the new one.
The standard library's rotating handler would let each of them rotate the others' files away.
"""

import fcntl
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES = 10 * 2**20
KEPT = 3
"""Old files kept beside the current one."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class LineFile:
    """An append-only file of lines that is rotated by size."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._descriptor = -1

    def write(self, line: str) -> None:
        """Append one line.

        Raises:
            OSError: The disk is full, or the folder is gone and cannot be made.
        """
        data = f"{line}\n".encode(errors="backslashreplace")
        if self._is_stale():
            self._open()
        if os.fstat(self._descriptor).st_size + len(data) > self._max_bytes:
            self._rotate()
        os.write(self._descriptor, data)

    def close(self) -> None:
        """Close the file; the next `write` opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_stale(self) -> bool:
        # One stat a line (about 1 µs) notices rotation by another process and a deleted file alike.
        if self._descriptor < 0:
            return True
        try:
            current = self._path.stat()
        except FileNotFoundError:
            return True
        mine = os.fstat(self._descriptor)
        return (current.st_dev, current.st_ino) != (mine.st_dev, mine.st_ino)

    def _open(self) -> None:
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _rotate(self) -> None:
        with self._rotation_lock():
            if self._is_stale():  # another process was quicker
                self._open()
                return
            for number in range(self._kept, 0, -1):
                source = self._numbered(number - 1) if number > 1 else self._path
                if source.exists():
                    source.replace(self._numbered(number))
            self._open()

    @contextmanager
    def _rotation_lock(self) -> Generator[None]:
        descriptor = os.open(
            self._path.with_name(f".{self._path.name}.lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class ServiceFiles:
    """The log files of a home, by service; a name that cannot be a file's goes to `mesh.jsonl`."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._files: dict[str, LineFile] = {}

    def write(self, service: str, line: str) -> None:
        """Append a line to the file of `service`."""
        file = self._files.get(service)
        if file is None:
            file = self._files[service] = LineFile(log_path(self._folder, service), max_bytes=self._max_bytes)
        file.write(line)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()


def log_path(folder: Path, service: str) -> Path:
    """Where the lines of `service` go."""
    return folder / f"{service if _FILE_NAME.fullmatch(service) else 'mesh'}.jsonl"
