"""Payments: an example service. Authorises amounts and quotes fees; run two of it and see how calls are shared.

    uvicorn payments:app --port 9001
    uvicorn payments:app --port 9002

It keeps authorisations in the memory of one process: what one instance authorised, the other does not know, and a
restart forgets all. Charges and refunds, which move money, are in a file that all instances share, and have their
effect once under each `Idempotency-Key`.
"""

import os
import sqlite3
from contextlib import closing
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import FastAPI, Header, Query, Request, Response
from once import Ledger
from pydantic import BaseModel, Field
from toska_common import Mesh
from toska_common.errors import Conflict, NotFound

CENT = Decimal("0.01")
FEE_SHARE, FEE_FIXED = Decimal("0.014"), Decimal("0.25")
LIMIT = Decimal(10_000)

Amount = Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=2, examples=["19.90"])]


class Currency(StrEnum):
    """What can be paid in (ISO 4217)."""

    EUR = "EUR"
    USD = "USD"
    CHF = "CHF"


class Server(BaseModel):
    """The instance that answered."""

    pid: int
    port: int


class Fee(BaseModel):
    """What a payment costs its receiver."""

    amount: Amount
    currency: Currency
    fee: Decimal = Field(description="1.4 % of the amount and 0.25")
    served_by: Server


class Status(StrEnum):
    """What became of a request to pay."""

    AUTHORIZED = "authorized"
    DECLINED = "declined"


class AuthorizationRequest(BaseModel):
    """A request to pay for an order."""

    order_id: int = Field(ge=1, examples=[1001])
    amount: Amount
    currency: Currency = Currency.EUR


class ChargeRequest(BaseModel):
    """A request to take money."""

    order_id: str = Field(min_length=1, max_length=128, examples=["a-1"])
    amount: Amount


class Charge(BaseModel):
    """Money that was taken."""

    id: str
    amount: Decimal


class RefundRequest(BaseModel):
    """A request to give back what was taken under a key, whether or not that ever happened."""

    charge_key: str = Field(min_length=1, max_length=128, description="The Idempotency-Key of the charge")


class Refund(BaseModel):
    """Money that was given back; nothing, if none was taken."""

    amount: Decimal


class Balance(BaseModel):
    """All charges less all refunds."""

    charges: int
    balance: Decimal


class Authorization(BaseModel):
    """A payment that was authorised, or declined."""

    id: UUID
    order_id: int
    amount: Amount
    currency: Currency
    fee: Decimal
    status: Status
    served_by: Server


IdempotencyKey = Annotated[str, Header(min_length=1, max_length=128, description="Repeat it with the request")]

app = FastAPI(
    title="Payments",
    description="Authorises payments and quotes fees. An example of Toska Mesh; it keeps its state in memory.",
    version="1.0.0",
)
mesh = Mesh(app, name="payments", tags=["example"])

authorizations: dict[UUID, Authorization] = {}
ledger = Ledger(
    "payments", "CREATE TABLE IF NOT EXISTS charges (key TEXT PRIMARY KEY, cents INTEGER, refunded INTEGER);"
)


def fee_for(amount: Decimal) -> Decimal:
    """The fee for an amount, rounded to a cent."""
    return (amount * FEE_SHARE + FEE_FIXED).quantize(CENT, ROUND_HALF_UP)


def this_server(request: Request) -> Server:
    """Who we are, to make visible which instance a call went to."""
    return Server(pid=os.getpid(), port=request.scope["server"][1])


@app.get("/fees", tags=["fees"], summary="Quote a fee")
async def quote_fee(request: Request, amount: Annotated[Amount, Query()], currency: Currency = Currency.EUR) -> Fee:
    """Tell what a payment of this amount would cost."""
    return Fee(amount=amount, currency=currency, fee=fee_for(amount), served_by=this_server(request))


@app.post("/authorizations", status_code=201, tags=["authorizations"], summary="Authorise a payment")
async def authorize(request: Request, wanted: AuthorizationRequest) -> Authorization:
    """Authorise a payment; amounts above 10,000 are declined."""
    authorization = Authorization(
        id=uuid4(),
        order_id=wanted.order_id,
        amount=wanted.amount,
        currency=wanted.currency,
        fee=fee_for(wanted.amount),
        status=Status.AUTHORIZED if wanted.amount <= LIMIT else Status.DECLINED,
        served_by=this_server(request),
    )
    authorizations[authorization.id] = authorization
    return authorization


@app.get("/authorizations/{authorization_id}", tags=["authorizations"], summary="Look an authorisation up")
async def get_authorization(authorization_id: UUID) -> Authorization:
    """Return a payment that this very instance authorised."""
    found = authorizations.get(authorization_id)
    if found is None:
        raise NotFound("this instance knows no such authorisation; another one may", authorization_id=authorization_id)
    return found


@app.post("/charges", status_code=201, tags=["charges"], summary="Take money, once", response_model=Charge)
def charge(wanted: ChargeRequest, idempotency_key: IdempotencyKey) -> Response:
    """Charge an amount; the same request under the same key is answered again, and charges nothing."""

    def effect(connection: sqlite3.Connection) -> Charge:
        if connection.execute("SELECT 1 FROM charges WHERE key = ?", (idempotency_key,)).fetchone():
            raise Conflict("this charge was taken back before it arrived")
        row = (idempotency_key, int(wanted.amount * 100), 0)
        connection.execute("INSERT INTO charges VALUES (?, ?, ?)", row)
        return Charge(id=idempotency_key, amount=wanted.amount)

    return Response(ledger.once(idempotency_key, wanted, effect), status_code=201, media_type="application/json")


@app.post("/refunds", tags=["charges"], summary="Give money back, once", response_model=Refund)
def refund(wanted: RefundRequest, idempotency_key: IdempotencyKey) -> Response:
    """Give back what was charged under a key. If nothing was, nothing ever will be: such a charge may still arrive."""

    def effect(connection: sqlite3.Connection) -> Refund:
        key = (wanted.charge_key,)
        found = connection.execute("SELECT cents - refunded FROM charges WHERE key = ?", key).fetchone()
        if found is None:
            connection.execute("INSERT INTO charges VALUES (?, 0, 0)", key)
        else:
            connection.execute("UPDATE charges SET refunded = cents WHERE key = ?", key)
        return Refund(amount=Decimal(0 if found is None else found[0]) / 100)

    return Response(ledger.once(idempotency_key, wanted, effect), media_type="application/json")


@app.get("/balance", tags=["charges"], summary="Tell the balance")
def get_balance() -> Balance:
    """Return what was charged and not given back, and in how many charges."""
    statement = "SELECT count(*), coalesce(sum(cents - refunded), 0) FROM charges WHERE cents > refunded"
    with closing(ledger.open()) as connection:
        charges, cents = connection.execute(statement).fetchone()
    return Balance(charges=charges, balance=(Decimal(cents) / 100).quantize(CENT))
