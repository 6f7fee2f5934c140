"""Real gRPC servers that say who they are."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

_grpc: Any = grpc


@asynccontextmanager
async def named_server(name: str) -> AsyncGenerator[int]:
    """A gRPC server that answers with its name; gives its port."""

    async def who(_request: bytes, _context: Any) -> bytes:
        return name.encode()

    server = grpc.aio.server()
    handler = _grpc.unary_unary_rpc_method_handler(who)
    server.add_generic_rpc_handlers((_grpc.method_handlers_generic_handler("echo", {"Who": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
