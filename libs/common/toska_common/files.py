"""State files that survive a crash at any moment: written whole or not at all, kept aside when they cannot be read."""

import os
from pathlib import Path

from toska_common.clock import now_utc


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, durable when this returns; a reader sees the old bytes or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def keep_aside(path: Path) -> Path:
    """Move a file that cannot be read out of the way, and return where it went."""
    aside = path.with_name(f"{path.name}.corrupt-{now_utc():%Y%m%dT%H%M%S}")
    number = 1
    while aside.exists():
        aside = path.with_name(f"{path.name}.corrupt-{now_utc():%Y%m%dT%H%M%S}-{number}")
        number += 1
    path.replace(aside)
    return aside
