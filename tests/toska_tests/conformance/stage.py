"""Where a case is played: its upstreams, its document in force, and the client's connection."""

import itertools
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from toska_tests.conformance.case import DEAD, Case
from toska_tests.conformance.engine import Serving
from toska_tests.ports import free_port
from toska_tests.raw_http import Client, Script, Upstream, answering, connect, upstream


def served_by(name: str) -> bytes:
    """What an upstream answers by itself."""
    return b"HTTP/1.1 200 OK\r\nx-served-by: %b\r\ncontent-length: 2\r\n\r\nok" % name.encode()


_serial = itertools.count()


class Stage:
    """One case, being played."""

    def __init__(self, serving: Serving, upstreams: Mapping[str, Upstream]) -> None:
        self.serving = serving
        self.upstreams = upstreams
        self._client: Client | None = None
        self._seen = dict.fromkeys(upstreams, 0)

    async def client(self, *, fresh: bool = False) -> Client:
        """The client's connection; a new one if the last was closed, or if it has to be `fresh`."""
        if self._client is not None and (fresh or self._client.closed):
            await self._client.aclose()
            self._client = None
        if self._client is None:
            self._client = await connect(self.serving.address)
        return self._client

    async def hang_up(self) -> None:
        """Close the client's connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def news(self) -> dict[str, int]:
        """How many requests each upstream was sent since this was last asked; those without any left out."""
        before, self._seen = self._seen, {name: len(one.requests) for name, one in self.upstreams.items()}
        return {name: new for name, count in self._seen.items() if (new := count - before[name])}


@asynccontextmanager
async def staged(case: Case, serving: Serving) -> AsyncGenerator[Stage]:
    """A case's upstreams and its document in force, until the block ends."""
    async with AsyncExitStack() as stack:
        clusters = {name: dict(settings) for name, settings in case.clusters.items()}
        for name in _led_to(case):
            clusters.setdefault(name, {"endpoints": [name]})
        upstreams: dict[str, Upstream] = {}
        ports: dict[str, int] = {}
        for settings in clusters.values():
            endpoints = [_placed(one) for one in settings["endpoints"]]
            for name in (one["upstream"] for one in endpoints):
                if name in ports:
                    continue
                behaviour = case.upstreams.get(name, served_by(name))
                if behaviour is DEAD:
                    ports[name] = free_port()
                    continue
                script: Script = answering(behaviour) if isinstance(behaviour, bytes) else behaviour
                upstreams[name] = await stack.enter_async_context(upstream(script))
                ports[name] = upstreams[name].port
            settings["endpoints"] = [_endpoint(one, ports) for one in endpoints]
        document = {"clusters": clusters, "routes": list(case.routes)}
        await serving.serve({"server": dict(case.server), **_renamed(document, clusters, f"-{next(_serial)}")})
        stage = Stage(serving, upstreams)
        stack.push_async_callback(stage.hang_up)
        yield stage


def _renamed(document: Mapping[str, Any], clusters: Collection[str], mark: str) -> dict[str, Any]:
    """The document with cluster names of its own: circuits, budgets and ejections are no other case's."""

    def rename(value: Any, key: str = "") -> Any:
        if isinstance(value, Mapping):
            inside = cast("Mapping[str, Any]", value)
            return {(name + mark if key == "clusters" else name): rename(one, name) for name, one in inside.items()}
        if isinstance(value, list | tuple):
            return [rename(one) for one in cast("Sequence[Any]", value)]
        return f"{value}{mark}" if key in ("to", "cluster") and value in clusters else value

    return rename(document)


def _led_to(case: Case) -> list[str]:
    found: list[str] = []
    for one in case.routes:
        to = one.get("to")
        found += [to] if isinstance(to, str) else [part["cluster"] for part in to or ()]
    return found


def _placed(endpoint: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"upstream": endpoint} if isinstance(endpoint, str) else endpoint


def _endpoint(settings: Mapping[str, Any], ports: Mapping[str, int]) -> dict[str, Any]:
    rest = {key: value for key, value in settings.items() if key != "upstream"}
    return {"address": "127.0.0.1", "port": ports[settings["upstream"]], **rest}
