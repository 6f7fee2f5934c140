"""Addresses that are kept for Envoy: it listens by itself, and while it restarts nobody else takes its place."""

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

from toska_common.envoy import ListenerOptions
from toska_common.errors import ConfigurationError
from toska_common.server import bind

from toska_gateway.listeners import ListenerAddress
from toska_gateway.unix_sockets import identity, open_unix_listener, remove


class KeptAddress:
    """One listener's address.

    Raises:
        ConfigurationError: It is taken or not ours.
    """

    def __init__(self, address: ListenerAddress) -> None:
        self.address = address
        self._kept: socket.socket | None = None
        if address.path:
            with contextlib.closing(open_unix_listener(address.path, address.mode, 1)):
                remove(address.path, identity(address.path))
            self.bound: tuple[str, int] = address.path, 0
            return
        # SO_REUSEPORT would silently share the address with a stranger of the same user, so it is first bound without.
        with contextlib.closing(bind(address.host, address.port)) as probe:
            port = probe.getsockname()[1]
        kept = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            kept.bind((address.host, port))  # and never listens: only Envoy's sockets get connections
        except OSError as error:
            kept.close()
            raise ConfigurationError(f"cannot listen on {address.host}:{port}: {error.strerror}") from error
        self._kept = kept
        self.bound = kept.getsockname()[:2]
        if address.http3:
            _check_datagrams(address.host, port)

    def options(self, number: int) -> ListenerOptions:
        """As the translation has it."""
        host, port = ("", 0) if self.address.path else (str(self.bound[0]), self.bound[1])
        return ListenerOptions(
            name=f"listener-{number}",
            host=host,
            port=port,
            path=self.address.path,
            mode=self.address.mode,
            tls=self.address.tls,
            proxied=self.address.proxy_protocol,
            redirect=self.address.redirect,
            http3=self.address.http3,
        )

    def close(self) -> None:
        """Let go of it."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        elif self.address.path:
            Path(self.address.path).unlink(missing_ok=True)


def _check_datagrams(host: str, port: int) -> None:
    # Looked at and not kept: a socket that is bound gets a part of the datagrams.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"cannot take HTTP/3 on {host}:{port}: {error.strerror}") from error


def keep_all(addresses: Sequence[ListenerAddress]) -> list[KeptAddress]:
    """Keep every address, or none.

    Raises:
        ConfigurationError: One of them is taken or not ours.
    """
    kept: list[KeptAddress] = []
    try:
        for address in addresses:
            kept.append(KeptAddress(address))  # noqa: PERF401 - those before are let go if one fails
    except ConfigurationError:
        for one in kept:
            one.close()
        raise
    return kept
