"""Checkout: an example of a saga. An order reserves stock, charges, and ships; if one of these fails, all is undone.

    uvicorn payments:app --port 9001
    uvicorn warehouse:app --port 9002
    uvicorn checkout:app --port 9003

It needs `toska-common[sagas]`. Kill it in the middle of an order, with `kill -9`, and start it again: the order goes
on, and nothing is charged twice. Sagas can be looked at and steered under /api/v1/sagas, with the admin token.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path
from pydantic import BaseModel, Field
from toska_common import Mesh
from toska_common.contracts.sagas import SagaFailure, SagaState
from toska_common.mesh import MeshClient
from toska_common.sagas import Attempt, Refused, Retry, Run, Sagas, saga, saga_routes, step

Amount = Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=2, examples=["19.90"])]
Trouble = Literal["refuse", "fail", "lose", "wait"]
TRIES = Retry(attempts=3, base=timedelta(milliseconds=100))


class Order(BaseModel):
    """What somebody wants to buy."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$", examples=["a-1"])
    item: str = Field(min_length=1, max_length=100, examples=["coffee"])
    amount: Amount
    trouble: dict[str, Trouble] = Field(
        default={},
        description="What goes wrong at `reserve`, `charge` or `ship`: it is refused, it fails whenever it is tried, "
        "its first answer is lost after the effect, or it takes two seconds",
        examples=[{"ship": "refuse"}],
    )


class Receipt(BaseModel):
    """What another service knows its deed by."""

    id: str


class OrderState(BaseModel):
    """How far an order is."""

    id: str
    state: SagaState
    failure: SagaFailure | None = None


@step(timeout=timedelta(seconds=5), retry=TRIES)
async def reserve(order: Order, attempt: Attempt) -> Receipt:
    """Keep one of the item."""
    return await _post(warehouse, "/reservations", _wanted(order), order, attempt)


@reserve.compensation()
async def release(_order: Order, _receipt: Receipt | None, attempt: Attempt) -> None:
    """Give it up again."""
    (await warehouse.post("/undo", json={"key": attempt.undoes}, headers=attempt.headers)).raise_for_status()


@step(timeout=timedelta(seconds=5), retry=TRIES)
async def charge(order: Order, attempt: Attempt) -> Receipt:
    """Take the money."""
    return await _post(payments, "/charges", {"order_id": order.id, "amount": str(order.amount)}, order, attempt)


@charge.compensation()
async def refund(_order: Order, _receipt: Receipt | None, attempt: Attempt) -> None:
    """Give it back."""
    (await payments.post("/refunds", json={"charge_key": attempt.undoes}, headers=attempt.headers)).raise_for_status()


@step(timeout=timedelta(seconds=5), retry=TRIES)
async def ship(order: Order, attempt: Attempt) -> Receipt:
    """Send it away."""
    return await _post(warehouse, "/shipments", _wanted(order), order, attempt)


@ship.compensation()
async def call_back(_order: Order, _receipt: Receipt | None, attempt: Attempt) -> None:
    """Have it come back."""
    (await warehouse.post("/undo", json={"key": attempt.undoes}, headers=attempt.headers)).raise_for_status()


@saga("place-order", timeout=timedelta(minutes=10))
async def place_order(order: Order, run: Run) -> Receipt:
    """The three steps."""
    await run(reserve, order)
    payment = await run(charge, order)
    await run(ship, order)
    return payment


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Sagas run while the app does."""
    async with sagas:
        yield


app = FastAPI(
    title="Checkout", description="Orders as sagas. An example of Toska Mesh.", version="1.0.0", lifespan=lifespan
)
mesh = Mesh(app, name="checkout", tags=["example"], depends_on=["payments", "warehouse"])
payments = mesh.client("payments", timeout=4.0)
warehouse = mesh.client("warehouse", timeout=4.0)
sagas = Sagas("checkout", [place_order], registry=mesh.metrics.registry)
app.include_router(saga_routes(sagas))


@app.post("/", status_code=202, tags=["orders"], summary="Place an order")
async def place(order: Order) -> OrderState:
    """Take an order; it is safe once this is answered. The same order may be sent again."""
    await sagas.start(place_order, order, id=order.id)
    return await get_order(order.id)


@app.get("/{order_id}", tags=["orders"], summary="Look an order up")
async def get_order(order_id: Annotated[str, Path(examples=["a-1"])]) -> OrderState:
    """Tell how far an order is."""
    return OrderState.model_validate((await sagas.get(order_id)).model_dump())


def _wanted(order: Order) -> dict[str, Any]:
    return {"order_id": order.id, "item": order.item}


async def _post(client: MeshClient, path: str, body: dict[str, Any], order: Order, attempt: Attempt) -> Receipt:
    trouble = order.trouble.get(attempt.step)
    if trouble == "refuse":
        raise Refused(f"no {attempt.step} for {order.id}")
    answer = await client.post(path, json=body, headers=attempt.headers)
    if trouble == "wait":
        await asyncio.sleep(2)
    if trouble == "fail" or (trouble == "lose" and attempt.number == 1):
        raise ConnectionError("the answer was lost")
    if 400 <= answer.status_code < 500:
        raise Refused(answer.json().get("detail", ""))
    answer.raise_for_status()
    return Receipt.model_validate(answer.json())
