"""The listening sockets of the data plane: opened by the parent, handed down to workers and to their successors.

Each worker slot has a socket of its own on the same address (SO_REUSEPORT), so the kernel spreads connections over the
workers. The parent keeps all of them open: what is queued on a socket whose worker died waits for the successor.
"""

import contextlib
import socket
import sys
from collections.abc import Sequence

from toska_common.errors import ConfigurationError
from toska_common.server import bind

from toska_gateway.listeners import ListenerAddress
from toska_gateway.unix_sockets import identity, open_unix_listener, remove

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


class Sockets:
    """One listener's sockets, one for each worker slot; the parent keeps all of them.

    Attributes:
        bound: Where it is; of a Unix socket its path and 0.

    Raises:
        ConfigurationError: It cannot be listened there.
    """

    def __init__(self, address: ListenerAddress, workers: int) -> None:
        self.address = address
        self._file: tuple[int, int] | None = None
        if address.path:
            # A Unix socket is one: all workers accept from it.
            first = open_unix_listener(address.path, address.mode, BACKLOG)
            self._file = identity(address.path)
            self.slots = [first, *(first.dup() for _ in range(workers - 1))]
            for listener in self.slots:
                listener.setblocking(False)
            self.bound: tuple[str, int] = address.path, 0
        else:
            self.slots = open_listeners(address.host, address.port, workers)
            self.bound = self.slots[0].getsockname()[:2]

    def close(self) -> None:
        """Stop listening, and take a Unix socket's file away."""
        for listener in self.slots:
            listener.close()
        known, self._file = self._file, None  # once: a file that comes to stand there later is another's
        if known is not None:
            remove(self.address.path, known)


def open_all(addresses: Sequence[ListenerAddress], workers: int) -> list[Sockets]:
    """Listen on every address, or on none.

    Raises:
        ConfigurationError: One of them is taken or not ours.
    """
    opened: list[Sockets] = []
    try:
        for address in addresses:
            opened.append(Sockets(address, workers))  # noqa: PERF401 - those before are closed if one fails
    except ConfigurationError:
        for sockets in opened:
            sockets.close()
        raise
    return opened
