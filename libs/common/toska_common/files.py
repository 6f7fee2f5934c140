"""State files that survive a crash at any moment: written whole or not at all, kept aside when they cannot be read."""

import errno
import os
import stat
from pathlib import Path

from toska_common.clock import now_utc


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, durable when this returns; a reader sees the old bytes or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)  # a part of it would keep a full disk full
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_file(path: Path, at_most: int) -> bytes:
    """The first `at_most` bytes of a file that a person named; it does not wait for a pipe that nobody writes to.

    Raises:
        OSError: It cannot be read, or is something else than a file.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(at_most)


def keep_aside(path: Path) -> Path:
    """Move a file that cannot be read out of the way, and return where it went."""
    aside = path.with_name(f"{path.name}.corrupt-{now_utc():%Y%m%dT%H%M%S}")
    number = 1
    while aside.exists():
        aside = path.with_name(f"{path.name}.corrupt-{now_utc():%Y%m%dT%H%M%S}-{number}")
        number += 1
    path.replace(aside)
    return aside


Stamp = tuple[int, int, int, int] | None
"""Device, inode, size and time of change of a file; `None` if it is not there."""


def stamp(path: Path) -> Stamp:
    """What tells one content of a file from another without reading it, also behind links that are swapped."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
