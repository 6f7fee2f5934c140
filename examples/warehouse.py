"""Warehouse: an example service. Keeps stock for orders and ships it; each once under each `Idempotency-Key`.

uvicorn warehouse:app --port 9002
"""

import sqlite3
from contextlib import closing
from typing import Annotated

from fastapi import FastAPI, Header, Response
from once import Ledger
from pydantic import BaseModel, Field
from toska_common import Mesh
from toska_common.errors import Conflict

STOCK = 100

IdempotencyKey = Annotated[str, Header(min_length=1, max_length=128, description="Repeat it with the request")]


class Wanted(BaseModel):
    """Something of the warehouse for an order."""

    order_id: str = Field(min_length=1, max_length=128, examples=["a-1"])
    item: str = Field(min_length=1, max_length=100, examples=["coffee"])


class Receipt(BaseModel):
    """What was reserved or shipped is known by this."""

    id: str


class Undo(BaseModel):
    """A request to take back what was done under a key, whether or not that ever happened."""

    key: str = Field(min_length=1, max_length=128, description="The Idempotency-Key of the request")


class Undone(BaseModel):
    """Whether there was anything to take back."""

    found: bool


class Stock(BaseModel):
    """One item."""

    available: int
    reserved: int
    shipped: int


app = FastAPI(
    title="Warehouse", description="Keeps stock for orders and ships it. An example of Toska Mesh.", version="1.0.0"
)
mesh = Mesh(app, name="warehouse", tags=["example"])
ledger = Ledger(
    "warehouse", "CREATE TABLE IF NOT EXISTS deeds (key TEXT PRIMARY KEY, deed TEXT, item TEXT, undone INTEGER);"
)


@app.post("/reservations", status_code=201, summary="Reserve an item", response_model=Receipt)
def reserve(wanted: Wanted, idempotency_key: IdempotencyKey) -> Response:
    """Keep one of the item for an order."""
    return _do("reserved", wanted, idempotency_key)


@app.post("/shipments", status_code=201, summary="Ship an item", response_model=Receipt)
def ship(wanted: Wanted, idempotency_key: IdempotencyKey) -> Response:
    """Send it away."""
    return _do("shipped", wanted, idempotency_key)


@app.post("/undo", summary="Take something back", response_model=Undone)
def undo(wanted: Undo, idempotency_key: IdempotencyKey) -> Response:
    """Give up a reservation, or call a shipment back. If there is none, there never will be under this key."""

    def effect(connection: sqlite3.Connection) -> Undone:
        found = connection.execute("UPDATE deeds SET undone = 1 WHERE key = ?", (wanted.key,)).rowcount > 0
        if not found:
            connection.execute("INSERT INTO deeds VALUES (?, 'none', '', 1)", (wanted.key,))
        return Undone(found=found)

    return Response(ledger.once(idempotency_key, wanted, effect), media_type="application/json")


@app.get("/stock/{item}", summary="Count an item")
def get_stock(item: str) -> Stock:
    """Return how many there are, and how many orders have one."""
    with closing(ledger.open()) as connection:
        reserved, shipped = _count(connection, item)
    return Stock(available=STOCK - reserved, reserved=reserved, shipped=shipped)


def _do(deed: str, wanted: Wanted, key: str) -> Response:
    def effect(connection: sqlite3.Connection) -> Receipt:
        if connection.execute("SELECT 1 FROM deeds WHERE key = ?", (key,)).fetchone():
            raise Conflict("this was taken back before it arrived")
        if deed == "reserved" and _count(connection, wanted.item)[0] >= STOCK:
            raise Conflict(f"there is no {wanted.item} left", item=wanted.item)
        connection.execute("INSERT INTO deeds VALUES (?, ?, ?, 0)", (key, deed, wanted.item))
        return Receipt(id=key)

    return Response(ledger.once(key, wanted, effect), status_code=201, media_type="application/json")


def _count(connection: sqlite3.Connection, item: str) -> tuple[int, int]:
    statement = "SELECT sum(deed = 'reserved'), sum(deed = 'shipped') FROM deeds WHERE item = ? AND undone = 0"
    reserved, shipped = connection.execute(statement, (item,)).fetchone()
    return reserved or 0, shipped or 0
