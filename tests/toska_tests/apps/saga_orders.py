"""An app of a mesh whose orders are sagas, for operators to look at and steer."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from toska_common import Mesh
from toska_common.sagas import Sagas, saga_routes
from toska_tests.saga_shop import Order, books, place_order


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    books.open(Path())
    async with sagas:
        yield


app = FastAPI(lifespan=lifespan)
mesh = Mesh(app, name="orders")
sagas = Sagas("orders", [place_order], registry=mesh.metrics.registry)
app.include_router(saga_routes(sagas))


@app.post("/orders/{order_id}", status_code=202)
async def place(order_id: str, order: Order) -> None:
    await sagas.start(place_order, order, id=order_id)
