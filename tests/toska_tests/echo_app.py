"""A user's service: joins a mesh in three lines, tells what it was sent, and streams for ever."""

import os
from collections.abc import AsyncIterator

import anyio
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse
from toska_common import Mesh

app = FastAPI(title="Echo")
mesh = Mesh(app, name="echo")


@app.get("/headers")
async def show_headers(request: Request) -> dict[str, str]:
    """The request's headers."""
    return dict(request.headers)


@app.get("/pid")
async def show_pid() -> int:
    """Which process answers."""
    return os.getpid()


@app.get("/stream")
async def stream() -> StreamingResponse:
    """Server-sent events without an end."""

    async def events() -> AsyncIterator[str]:
        yield "data: first\n\n"
        await anyio.sleep_forever()

    return StreamingResponse(events(), media_type="text/event-stream")
