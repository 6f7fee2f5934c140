"""The events service for tests: in the test's own loop on a free port, beside a discovery."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import httpx
from toska_common.server import bind, serve
from toska_events.app import create_service
from toska_events.settings import Settings

from toska_tests.clients import http_client
from toska_tests.discovery_rig import RunningDiscovery
from toska_tests.waiting import wait_until


@dataclass(frozen=True, slots=True)
class RunningEvents:
    """An events service that answers."""

    settings: Settings
    http: httpx.AsyncClient
    discovery: RunningDiscovery

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"http://127.0.0.1:{self.settings.port}/api/v1/events"

    def bearer(self, access: str = "admin") -> dict[str, str]:
        """Headers of a bearer of that token."""
        return {"authorization": f"Bearer {getattr(self.settings.credentials(), access)}"}

    async def ask(
        self, method: str, path: str, *, access: str = "admin", headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        """Send a request with a token; none if `access` is empty."""
        sent = {**(self.bearer(access) if access else {}), **(headers or {})}
        return await self.http.request(method, f"{self.url}/{path}", headers=sent, **options)

    async def get(self, path: str, **options: Any) -> Any:
        """The JSON of a GET that succeeds."""
        answer = await self.ask("GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any, **options: Any) -> Any:
        """The JSON of a POST that succeeds."""
        answer = await self.ask("POST", path, json=body, **options)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()


@asynccontextmanager
async def events_service(discovery: RunningDiscovery, **options: Any) -> AsyncGenerator[RunningEvents]:
    """Run the events service beside `discovery`, in its home, until the block ends."""
    with ExitStack() as stack:
        sock = stack.enter_context(bind("127.0.0.1", 0))
        port = sock.getsockname()[1]
        chosen: dict[str, Any] = {"grpc_port": -1, **options}
        settings = Settings(
            home=discovery.settings.home,
            port=port,
            embedded_registry_url=discovery.consul,
            **chosen,
        )
        async with http_client() as http, anyio.create_task_group() as group:
            await group.start(partial(serve, create_service(settings), {"events": sock}))
            running = RunningEvents(settings, http, discovery)

            async def is_connected() -> bool:
                return (await running.ask("GET", "topics")).status_code == 200

            await wait_until(is_connected, what="the events service has its transport")
            yield running
            group.cancel_scope.cancel()
