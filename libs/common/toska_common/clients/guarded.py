"""Resolving names for connections to where others say: addresses that nobody in the mesh may be sent to are dropped."""

import errno
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult

from toska_common.targets import TargetRules


class GuardedResolver(aiohttp.ThreadedResolver):
    """Applies the rules after resolution, so that a name cannot hide an address.

    aiohttp does not ask it for an address that is written as one: that is for the caller to check.
    """

    def __init__(self, rules: Callable[[], TargetRules] = TargetRules) -> None:
        super().__init__()
        self._rules = rules

    async def resolve(self, host: str, port: int = 0, *args: Any, **kwargs: Any) -> list[ResolveResult]:
        found = await super().resolve(host, port, *args, **kwargs)
        rules = self._rules()
        allowed = [item for item in found if rules.refusal(item["host"], item["port"]) is None]
        if found and not allowed:
            raise PermissionError(errno.EACCES, f"{host} is an address that must not be connected to")
        return allowed
