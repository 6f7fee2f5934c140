"""Where the embedded log of a home is, and addresses of sockets whose path is longer than the kernel takes."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from toska_common.errors import ConfigurationError

FOLDER = "events"
SOCKET = "log.sock"

_MAX_PATH = 107
"""Bytes of `sun_path` before its end (unix(7)); 103 on macOS and BSD."""


def socket_path(home: Path) -> Path:
    """Where the log of this home is served."""
    return home.expanduser().absolute() / FOLDER / SOCKET


@contextmanager
def socket_address(path: Path, *, platform: str = sys.platform) -> Generator[str]:
    """An address to bind or connect to, valid inside the block.

    Raises:
        ConfigurationError: The path is too long, on a system without `/proc`.
        OSError: The folder is not there.
    """
    limit = _MAX_PATH if platform == "linux" else 103
    if len(os.fsencode(path)) <= limit:
        yield str(path)
        return
    if platform != "linux":
        raise ConfigurationError(
            f"the path of the event log's socket, {path}, has more than {limit} bytes; choose a shorter TOSKA_HOME"
        )
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
