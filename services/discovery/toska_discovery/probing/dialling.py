"""Connecting for probes: names are resolved, forbidden addresses refused, and failures said in Go's words.

The rules see the very address that is connected to, of every connection: of redirects too, and of a name that resolves
to something else this time.
"""

import asyncio
import os
import socket
from typing import Any

from toska_common.targets import TargetRules

AddressInfo = tuple[int, int, int, str, Any]
"""As `socket.getaddrinfo` gives them."""

_REASONS = {
    "[Errno -2] Name or service not known": "no such host",
    "[Errno -5] No address associated with hostname": "no such host",
}


class TargetRefused(OSError):
    """The mesh does not connect to this address, whoever asks."""


class BadTarget(ValueError):
    """What is to be probed is not an address; the message has Go's words."""


class Dialler:
    """Opens connections within `rules`."""

    def __init__(self, rules: TargetRules) -> None:
        self._rules = rules

    def open_socket(self, info: AddressInfo) -> socket.socket:
        """A socket to connect to the address of `info` with.

        Raises:
            TargetRefused: Nobody may connect there.
        """
        family, kind, protocol, _, address = info
        refusal = self._rules.refusal(str(address[0]), int(address[1]))
        if refusal is not None:
            raise TargetRefused(f"the mesh does not connect there: {refusal}")
        return socket.socket(family, kind, protocol)

    async def resolve(self, host: str, port: int) -> list[AddressInfo]:
        """The addresses of `host`.

        Raises:
            OSError: It has none.
            TargetRefused: It has none that may be connected to.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise OSError(f"dial tcp: lookup {host}: {_REASONS.get(str(error), str(error))}") from error
        refusals = [self._rules.refusal(str(info[4][0]), port) for info in found]
        allowed: list[AddressInfo] = [info for info, refusal in zip(found, refusals, strict=True) if refusal is None]
        if not allowed:
            raise TargetRefused(f"the mesh does not connect there: {next(filter(None, refusals), 'no address')}")
        return allowed

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connection to the first address of `host` that takes one.

        Raises:
            OSError: None does; the message has Go's words.
        """
        failure = OSError(f"dial tcp: lookup {host}: no such host")
        for info in await self.resolve(host, port):
            sock = self.open_socket(info)
            try:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, info[4])
            except OSError as error:
                sock.close()
                failure = OSError(f"dial tcp {join_address(info[4][0], port)}: {reason_of(error)}")
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure


def split_address(target: str) -> tuple[str, int]:
    """Host and port of `host:port`; a host with colons of its own stands in brackets.

    Raises:
        BadTarget: It is something else.
    """
    host, colon, port = target.rpartition(":")
    if target.startswith("["):
        host, bracket, rest = target[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise BadTarget(f"dial tcp: address {target}: missing port in address")
        port = rest[1:]
    elif not colon:
        raise BadTarget(f"dial tcp: address {target}: missing port in address")
    elif ":" in host:
        raise BadTarget(f"dial tcp: address {target}: too many colons in address")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise BadTarget(f"dial tcp: address {port}: invalid port")
    return host or "localhost", int(port)


def join_address(host: str, port: int) -> str:
    """`host:port` with brackets where they are due."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reason_of(error: OSError) -> str:
    """Why a connection could not be made, as Go has it."""
    if not error.errno or error.errno < 0:
        return str(error)
    return f"connect: {os.strerror(error.errno).lower()}"  # asyncio puts words of its own into `strerror`
