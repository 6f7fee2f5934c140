"""Payments: an example service. Authorises amounts and quotes fees; run two of it and see how calls are shared.

    uvicorn payments:app --port 9001
    uvicorn payments:app --port 9002

It keeps everything in the memory of one process: what one instance authorised, the other does not know, and a restart
forgets all. A real service would keep it in a database that its instances share.
"""

import os
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, Field
from toska_common import Mesh
from toska_common.errors import NotFound

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


class Authorization(BaseModel):
    """A payment that was authorised, or declined."""

    id: UUID
    order_id: int
    amount: Amount
    currency: Currency
    fee: Decimal
    status: Status
    served_by: Server


app = FastAPI(
    title="Payments",
    description="Authorises payments and quotes fees. An example of Toska Mesh; it keeps its state in memory.",
    version="1.0.0",
)
mesh = Mesh(app, name="payments", tags=["example"])

authorizations: dict[UUID, Authorization] = {}


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
