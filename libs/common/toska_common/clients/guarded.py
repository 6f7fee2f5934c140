"""Connections to where others say: addresses that nobody in the mesh may be sent to are dropped."""

import errno
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult

from toska_common.targets import TargetRules

Rules = Callable[[], TargetRules]
"""Those of the moment."""


def guarded_connector(rules: Rules = TargetRules, **options: Any) -> aiohttp.TCPConnector:
    """A connector that goes nowhere the rules forbid; `options` are those of `TCPConnector`.

    Names are held to them when they are resolved, and every address once more just before a socket is opened to it: an
    address that stands in a URL is resolved by nobody, and what a name was resolved to is remembered for some seconds.
    """

    def open_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, (host, port, *_) = info
        refusal = rules().refusal(str(host), int(port))
        if refusal is not None:
            raise PermissionError(errno.EACCES, refusal)
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(resolver=_GuardedResolver(rules), socket_factory=open_socket, **options)


class _GuardedResolver(aiohttp.ThreadedResolver):
    """Applies the rules after resolution, so that a name cannot hide an address."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self._rules = rules

    async def resolve(self, host: str, port: int = 0, *args: Any, **kwargs: Any) -> list[ResolveResult]:
        found = await super().resolve(host, port, *args, **kwargs)
        rules = self._rules()
        allowed = [item for item in found if rules.refusal(item["host"], item["port"]) is None]
        if found and not allowed:
            raise PermissionError(errno.EACCES, f"{host} is an address that must not be connected to")
        return allowed
