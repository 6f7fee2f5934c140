"""The connection of an app to its registry: found again at every call, so that a mesh may come, go and move."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from toska_common.clients.consul import ConsulClient
from toska_common.mesh.location import Location

T = TypeVar("T")


class RegistryLink:
    """Runs calls against whatever registry `locate` names at that moment; nothing is connected before the first."""

    def __init__(self, locate: Callable[[], Location]) -> None:
        self._locate = locate
        self._stack = AsyncExitStack()
        self._clients: dict[tuple[str, str], ConsulClient] = {}

    @property
    def url(self) -> str:
        """Where the registry is believed to be."""
        return self._locate().url

    async def run(self, call: Callable[[ConsulClient], Awaitable[T]]) -> T:
        """Run `call` with a client of the registry.

        Raises:
            MeshError: What the client raises.
        """
        location = self._locate()
        key = (location.url, location.token)
        client = self._clients.get(key)
        if client is None:
            # Earlier ones stay open until the end: a blocked query of somebody else may still be running on them.
            opened = ConsulClient.open(location.url, token=location.token, tls=location.tls)
            client = self._clients[key] = await self._stack.enter_async_context(opened)
        return await call(client)

    async def aclose(self) -> None:
        """Close every connection."""
        self._clients.clear()
        await self._stack.aclose()
