"""The listening sockets of the data plane: opened by the parent, handed down to workers and to their successors.

Each worker slot has a socket of its own on the same address (SO_REUSEPORT), so the kernel spreads connections over the
workers. The parent keeps all of them open: what is queued on a socket whose worker died waits for the successor.
"""

import contextlib
import socket
import sys

from toska_common.errors import ConfigurationError
from toska_common.server import bind

BACKLOG = 4096


def open_listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """Open `count` listening sockets on one address; with port 0 on a free one.

    macOS does not balance SO_REUSEPORT; there all slots share one socket.

    Raises:
        ConfigurationError: The address is taken or not ours.
    """
    # SO_REUSEPORT would silently share the address with a stranger of the same user, so it is first bound without.
    with contextlib.closing(bind(host, port)) as probe:
        port = probe.getsockname()[1]
    if sys.platform == "darwin":
        shared = bind(host, port)
        return [shared, *(shared.dup() for _ in range(count - 1))]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listeners: list[socket.socket] = []
    try:
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listeners
