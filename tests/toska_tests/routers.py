"""A router in this process, on a real socket, and what its gateways and operators say to it."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
from toska_common.contracts.routing import Snapshot, SnapshotDelta
from toska_common.errors import ConfigurationError
from toska_common.routing.delta import apply_delta
from toska_common.server import bind, serve
from toska_router.app import create_service
from toska_router.settings import Settings

from toska_tests.clients import http_client
from toska_tests.waiting import wait_until


class RunningRouter:
    """Talks to a router as an operator and as a gateway."""

    def __init__(self, home: Path, client: httpx.AsyncClient, stop: anyio.CancelScope) -> None:
        self._home = home
        self._stop = stop
        self.http = client
        """Without a token."""

    def token(self, name: str) -> dict[str, str]:
        """The header with the token in `home/NAME.token`."""
        return {"authorization": f"Bearer {(self._home / f'{name}.token').read_text().strip()}"}

    async def put(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Make or replace a resource, as an operator."""
        return await self.http.put(f"/api/v1/{path}", json=body, headers={**self.token("admin"), **headers})

    async def delete(self, path: str, **headers: str) -> httpx.Response:
        """Take a resource away, as an operator."""
        return await self.http.delete(f"/api/v1/{path}", headers={**self.token("admin"), **headers})

    async def read(self, path: str) -> Any:
        """Read something."""
        return (await self.http.get(f"/api/v1/{path}")).raise_for_status().json()

    async def poll(self, has: Snapshot | None = None, *, wait: float = 10, **fields: Any) -> SnapshotDelta:
        """Ask for news, as a gateway that has `has`."""
        answer = await self.http.post("/api/v1/snapshot", json=poll_body(has, wait=wait, **fields), timeout=wait + 5)
        return SnapshotDelta.model_validate_json(answer.raise_for_status().content)

    async def snapshot(self) -> Snapshot:
        """The newest snapshot, put together from a delta; waits for the first one."""
        return apply_delta(None, await self.poll())

    async def wait_for_endpoints(self, cluster: str, *keys: str, within: float = 10) -> Snapshot:
        """Wait until a cluster has exactly these endpoints."""
        newest: list[Snapshot] = []

        async def has_them() -> bool:
            newest[:] = [await self.snapshot()]
            pool = newest[0].endpoints.get(cluster)
            return pool is not None and [endpoint.key for endpoint in pool.endpoints] == sorted(keys)

        await wait_until(has_them, within=within, what=f"{cluster} has {keys}")
        return newest[0]

    def stop(self) -> None:
        """Begin to stop, as Ctrl-C does."""
        self._stop.cancel()


StartRouter = Callable[..., AbstractAsyncContextManager[RunningRouter]]
"""The fixture `start_router`: starts a router with these settings, for as long as the block lasts."""


def poll_body(has: Snapshot | None = None, *, wait: float = 10, **fields: Any) -> Mapping[str, Any]:
    """What a gateway that has `has` asks."""
    body: dict[str, Any] = {"gateway": "gateway-1", "wait_seconds": wait, **fields}
    if has is not None:
        body |= {"version": has.version, "routes_version": has.routes_version}
    return body


def is_empty(delta: SnapshotDelta) -> bool:
    """Whether an answer says that there is nothing new."""
    return delta.version == delta.base and delta.table is None and not delta.endpoints


@asynccontextmanager
async def running_router(home: Path, registry_url: str, **options: Any) -> AsyncGenerator[RunningRouter]:
    """A router of the block's own, which is stopped with the block.

    Raises:
        ConfigurationError: What kept it from starting.
    """
    try:
        async with _running_router(home, registry_url, **options) as router:
            yield router
    except* ConfigurationError as group:
        raise _first_of(group) from None


def _first_of(group: BaseExceptionGroup[ConfigurationError]) -> ConfigurationError:
    error = group.exceptions[0]
    return _first_of(error) if isinstance(error, BaseExceptionGroup) else error


@asynccontextmanager
async def _running_router(home: Path, registry_url: str, **options: Any) -> AsyncGenerator[RunningRouter]:
    with bind("127.0.0.1", 0) as sock:
        port: int = sock.getsockname()[1]
        service = create_service(Settings(home=home, port=port, registry_url=registry_url, **options))
        limits = httpx.Limits(max_connections=None)
        async with (
            http_client(base_url=f"http://127.0.0.1:{port}", limits=limits) as client,
            anyio.create_task_group() as group,
        ):
            stop = anyio.CancelScope()

            async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                with stop:
                    await serve(service, {"router": sock}, task_status=task_status)

            await group.start(partial(run))
            yield RunningRouter(home, client, stop)
            stop.cancel()
