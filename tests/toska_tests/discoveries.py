"""Discovery in this process, on real sockets: the registry that `toska up` brings."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from toska_common.server import bind, serve
from toska_discovery.app import CONSUL, REST, create_service
from toska_discovery.settings import Settings


@asynccontextmanager
async def running_discovery(home: Path, **options: Any) -> AsyncGenerator[str]:
    """A discovery of the block's own; yields the base URL of its Consul HTTP API."""
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(bind("127.0.0.1", 0)) for name in (REST, CONSUL)}
        ports = {name: sock.getsockname()[1] for name, sock in sockets.items()}
        own: dict[str, Any] = {"port": ports[REST], "consul_port": ports[CONSUL], "dns_port": 0, "grpc_port": -1}
        service = create_service(Settings(home=home, **{**own, **options}))
        async with anyio.create_task_group() as group:

            async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                await serve(service, sockets, task_status=task_status)

            await group.start(run)
            yield f"http://127.0.0.1:{ports[CONSUL]}"
            group.cancel_scope.cancel()
