"""Sagas: work over several services that happens as a whole, or is undone, whatever dies on the way (docs/sagas.md).

    @step(timeout=timedelta(seconds=2))
    async def charge(order: Order, attempt: Attempt) -> Payment: ...

    @charge.compensation()
    async def refund(order: Order, payment: Payment | None, attempt: Attempt) -> None: ...

    @saga("place-order")
    async def place_order(order: Order, run: Run) -> Receipt:
        payment = await run(charge, order)
        ...

    sagas = Sagas("orders", [place_order])

Declaring them is cheap; SQLAlchemy and DBOS (extra `[sagas]`) are loaded with the first saga.
"""

from toska_common.sagas.definition import Saga, saga
from toska_common.sagas.errors import (
    IllegalSagaState,
    Refused,
    SagaIdTaken,
    SagasClosed,
    StepFailed,
    UnknownSaga,
)
from toska_common.sagas.handlers import saga_routes
from toska_common.sagas.runs import Run
from toska_common.sagas.service import Sagas
from toska_common.sagas.settings import SagaSettings
from toska_common.sagas.steps import Attempt, Retry, Step, step

__all__ = [
    "Attempt",
    "IllegalSagaState",
    "Refused",
    "Retry",
    "Run",
    "Saga",
    "SagaIdTaken",
    "SagaSettings",
    "Sagas",
    "SagasClosed",
    "Step",
    "StepFailed",
    "UnknownSaga",
    "saga",
    "saga_routes",
    "step",
]
