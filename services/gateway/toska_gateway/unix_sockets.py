"""Listening Unix sockets: made with their permissions, in place of one that a dead process left, and removed again."""

import contextlib
import os
import socket
import stat
from pathlib import Path

from toska_common.errors import ConfigurationError


def open_unix_listener(path: str, mode: int, backlog: int) -> socket.socket:
    """Listen on `path`.

    Raises:
        ConfigurationError: Somebody listens there, there is something else, or it cannot be made.
    """
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody may connect before the permissions are what they should be.
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        Path(path).chmod(mode)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen on unix:{path}: {error.strerror or error}") from error
    return listener


def _clear(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(f"cannot listen on unix:{path}: {error.strerror or error}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigurationError(f"cannot listen on unix:{path}: there is something that is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass  # its process is gone
        except OSError as error:
            raise ConfigurationError(f"cannot listen on unix:{path}: {error.strerror or error}") from error
        else:
            raise ConfigurationError(f"cannot listen on unix:{path}: another process listens there")
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()


def identity(path: str) -> tuple[int, int]:
    """What tells this file from another that may come to stand in its place."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def remove(path: str, known: tuple[int, int]) -> None:
    """Take a socket's file away, unless it is another's by now."""
    with contextlib.suppress(OSError):
        if identity(path) == known:
            Path(path).unlink()
