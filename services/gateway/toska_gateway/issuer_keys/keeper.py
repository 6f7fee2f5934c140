"""All the sources of keys that the routing in force names, followed side by side."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
from anyio import CancelScope, to_thread
from anyio.abc import TaskGroup
from toska_common.contracts.gateway import IssuerKeys
from toska_common.contracts.routing import Route, RouteTable
from toska_common.routing.picking import PickedRoutes

from toska_gateway.issuer_keys.fetch import Refusal
from toska_gateway.issuer_keys.follower import Answer, KeyFollower
from toska_gateway.issuer_keys.readers import local_problems, reader_of
from toska_gateway.issuer_keys.sources import KeySource, KeysRefused, sources_of
from toska_gateway.issuer_keys.store import KeyStore

Followers = Mapping[str, KeyFollower]


class KeyKeeper:
    """Keeps the keys that workers verify tokens with.

    Args:
        folder: Where relative paths begin.
        refusal: Which addresses are not fetched from.
        tell_workers: Sends all of them a message.
        home: Where fetched keys are kept for the next start; `None`: nowhere.
    """

    def __init__(
        self, folder: Path, refusal: Refusal, tell_workers: Callable[[dict[str, Any]], None], home: Path | None
    ) -> None:
        self._folder = folder
        self._refusal = refusal
        self._tell_workers = tell_workers
        self._store = None if home is None else KeyStore(home)
        self._followers: dict[str, KeyFollower] = {}
        self._scopes: dict[str, CancelScope] = {}
        self._group: TaskGroup | None = None
        self._guarded = PickedRoutes(lambda route: route.policies.auth is not None)
        self._known: tuple[Mapping[str, Route], Mapping[str, KeySource]] = {}, {}

    async def prepare(self, table: RouteTable) -> Followers:
        """The followers of a table's sources, not running yet if they are new; keys of files are read already.

        Raises:
            KeysRefused: Keys that are here, in a file or in the table, cannot be used.
        """
        sources = self._sources_of(table)
        new = [source for name, source in sources.items() if name not in self._followers]
        if any(source.url is None for source in new):
            findings = await to_thread.run_sync(local_problems, table, self._folder)
            if findings:
                raise KeysRefused(findings)
        prepared = {name: self._followers[name] for name in sources if name in self._followers}
        for source in new:
            reader = reader_of(source, self._folder, self._refusal)
            follower = prepared[source.name] = KeyFollower(source, reader, self._changed)
            if source.url is None:
                await follower.look()
            elif self._store is not None:
                await self._store.fill(follower)
        return prepared

    def _sources_of(self, table: RouteTable) -> Mapping[str, KeySource]:
        guarded = self._guarded.of(table)
        if guarded is not self._known[0]:
            self._known = guarded, sources_of(table) if guarded else {}
        return self._known[1]

    def use(self, followers: Followers) -> None:
        """Follow these from now on, and no others."""
        before, self._followers = self._followers, dict(followers)
        for name in before.keys() - followers.keys():
            scope = self._scopes.pop(name, None)
            if scope is not None:
                scope.cancel()
        if self._group is not None:
            for name in followers.keys() - before.keys():
                self._group.start_soon(self._follow, followers[name])

    async def run(self) -> None:
        """Follow what is in use, for ever."""
        async with anyio.create_task_group() as group:
            self._group = group
            if self._store is not None:
                group.start_soon(self._store.run, lambda: self._followers)
            for follower in self._followers.values():
                group.start_soon(self._follow, follower)
            await anyio.sleep_forever()

    async def _follow(self, follower: KeyFollower) -> None:
        name = follower.source.name
        if self._followers.get(name) is not follower:
            return  # gone before it began
        with CancelScope() as scope:
            self._scopes[name] = scope
            await follower.run()

    def _changed(self, message: dict[str, Any]) -> None:
        if message["source"] in self._followers:
            self._tell_workers(message)
            if self._store is not None:
                self._store.keep_soon()

    def want(self, source: str, answer: Answer) -> None:
        """A worker misses a key of a source; one that is no longer in use is not answered."""
        follower = self._followers.get(source)
        if follower is not None:
            follower.want(answer)

    @property
    def status(self) -> list[IssuerKeys]:
        """How each source is."""
        return [follower.status for follower in self._followers.values()]


def messages_of(followers: Followers) -> Sequence[dict[str, Any]]:
    """What brings a worker to the keys that there are."""
    return [follower.message() for follower in followers.values()]
