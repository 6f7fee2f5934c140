"""Orders: an example service. Takes orders and has them paid by `payments`, which it calls through the mesh.

    uvicorn orders:app --port 9003

Behind the gateway of `toska up` its paths begin with /orders: `curl http://127.0.0.1:8080/orders/42`. It keeps its
orders in memory; order 42 is there from the start, so that there is something to look at.
"""

from decimal import Decimal
from itertools import count
from typing import Annotated

from fastapi import FastAPI, Path
from pydantic import BaseModel, Field
from toska_common import Mesh
from toska_common.errors import NotFound

Amount = Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=2, examples=["19.90"])]


class Server(BaseModel):
    """The instance of payments that answered."""

    pid: int
    port: int


class Payment(BaseModel):
    """What payments said."""

    status: str
    fee: Decimal
    served_by: Server


class OrderRequest(BaseModel):
    """What somebody wants to buy."""

    item: str = Field(min_length=1, max_length=100, examples=["coffee"])
    amount: Amount


class Order(BaseModel):
    """An order and its payment."""

    id: int
    item: str
    amount: Amount
    payment: Payment | None = Field(default=None, description="Absent until it was paid for")


class OrderWithFee(Order):
    """An order, and what its payment would cost today."""

    fee_today: Decimal
    fee_quoted_by: Server


app = FastAPI(
    title="Orders",
    description="Takes orders, and has them paid by Payments. An example of Toska Mesh; it keeps its state in memory.",
    version="1.0.0",
)
mesh = Mesh(app, name="orders", tags=["example"], depends_on=["payments"])
payments = mesh.client("payments", timeout=2.0)

orders: dict[int, Order] = {42: Order(id=42, item="coffee", amount=Decimal("19.90"))}
next_id = count(1001)


@app.get("/", tags=["orders"], summary="List the orders")
async def list_orders() -> list[Order]:
    """All orders that this instance took, oldest first."""
    return list(orders.values())


@app.post("/", status_code=201, tags=["orders"], summary="Place an order")
async def place_order(wanted: OrderRequest) -> Order:
    """Take an order and have it paid; `payment.served_by` tells by which instance of payments."""
    order_id = next(next_id)
    answer = await payments.post("/authorizations", json={"order_id": order_id, "amount": str(wanted.amount)})
    answer.raise_for_status()
    payment = Payment.model_validate(answer.json())
    orders[order_id] = Order(id=order_id, item=wanted.item, amount=wanted.amount, payment=payment)
    return orders[order_id]


@app.get("/{order_id}", tags=["orders"], summary="Look an order up")
async def get_order(order_id: Annotated[int, Path(ge=1, examples=[42])]) -> OrderWithFee:
    """Return an order, with the fee that payments quotes for it now."""
    order = orders.get(order_id)
    if order is None:
        raise NotFound(f"there is no order {order_id}", order_id=order_id)
    answer = await payments.get("/fees", params={"amount": str(order.amount)})
    answer.raise_for_status()
    quote = answer.json()
    return OrderWithFee(**order.model_dump(), fee_today=quote["fee"], fee_quoted_by=quote["served_by"])
