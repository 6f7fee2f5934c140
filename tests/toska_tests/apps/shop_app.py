"""A user's service with everything that the SDK has to get along with, served by tests as users serve theirs."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, HTTPException, Request, WebSocket
from prometheus_client import Counter
from starlette.responses import RedirectResponse, StreamingResponse
from toska_common import Mesh
from toska_common.http_context import remaining_s
from toska_common.trace import current_trace_id

app = FastAPI(title="Shop", version="1.2.3")
mesh = Mesh(
    app,
    name=os.environ.get("SHOP_NAME", "shop"),
    tags=["test"],
    metadata={"team": "shops"},
    checks={"till": lambda: not Path(os.environ.get("SHOP_TILL_JAM", "/no/jam")).exists()},
    grpc_health_port=int(os.environ["SHOP_GRPC_PORT"]) if "SHOP_GRPC_PORT" in os.environ else None,
)
sold = Counter("shop_sold", "Things sold")


@app.get("/server")
async def show_server(request: Request) -> dict[str, int]:
    """Which process answers, on which port."""
    return {"pid": os.getpid(), "port": request.scope["server"][1]}


@app.post("/sell")
async def sell() -> int:
    """Count a sale, and tell which process did."""
    sold.inc()
    return os.getpid()


@app.get("/items/{item_id}")
async def get_item(item_id: int) -> int:
    """An item; some are missing."""
    if item_id > 100:
        raise HTTPException(404, "no such item")
    return item_id


@app.get("/old")
async def redirect(request: Request) -> RedirectResponse:
    """Lead to another page of this app."""
    return RedirectResponse(request.url_for("show_server"))


@app.get("/crash")
async def crash() -> None:
    """Fail in a way that nobody foresaw."""
    raise RuntimeError("the secret is 4711")


@app.get("/slow")
async def slow(seconds: float = 1.0) -> float:
    """Take a while."""
    await anyio.sleep(seconds)
    return seconds


@app.get("/events")
async def events() -> StreamingResponse:
    """Server-sent events without an end."""

    async def generate() -> AsyncIterator[str]:
        yield f"data: {os.getpid()}\n\n"
        await anyio.sleep_forever()

    return StreamingResponse(generate(), media_type="text/event-stream")


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    """Say everything twice."""
    await socket.accept()
    await socket.send_text("hello")
    while True:
        await socket.send_text(await socket.receive_text())


@app.get("/context")
async def show_context(request: Request) -> dict[str, Any]:
    """What came with the request."""
    return {
        "headers": dict(request.headers),
        "trace_id": current_trace_id(),
        "remaining_s": remaining_s(),
        "root_path": request.scope["root_path"],
        "pid": os.getpid(),
    }


@app.api_route("/call/{service}/{path:path}", methods=["GET", "POST"])
async def call(request: Request, service: str, path: str) -> Any:
    """Call another service and pass its JSON on."""
    answer = await mesh.client(service, timeout=2.0).request(request.method, f"/{path}", params=request.query_params)
    answer.raise_for_status()
    return answer.json()
