"""A process that runs sagas of three steps: `python -m benchmarks.sagas.ours URL COUNT AT_ONCE`."""

import asyncio
import logging
from itertools import count

import structlog
from pydantic import BaseModel, SecretStr
from toska_common.sagas import Attempt, Run, Sagas, Step, saga, step
from toska_common.sagas.settings import SagaSettings

from benchmarks.sagas.pacing import arguments, pace


class Order(BaseModel):
    """What a saga is started with."""

    id: str
    amount: str = "19.90"


class Receipt(BaseModel):
    """What a step gives."""

    number: str


def _step(name: str) -> Step[Order, Receipt]:
    @step(name=name)
    async def act(order: Order, attempt: Attempt) -> Receipt:
        return Receipt(number=attempt.idempotency_key)

    @act.compensation()
    async def undo(order: Order, receipt: Receipt | None, attempt: Attempt) -> None:
        raise AssertionError("nothing is undone here")

    del undo
    return act


RESERVE, CHARGE, SHIP = _step("reserve"), _step("charge"), _step("ship")


@saga("place-order")
async def place_order(order: Order, run: Run) -> Receipt:
    """Three steps that take no time themselves."""
    await run(RESERVE, order)
    receipt = await run(CHARGE, order)
    await run(SHIP, order)
    return receipt


async def _main(url: str, sagas: int, at_once: int) -> None:
    ids = count()
    async with Sagas("bench", [place_order], settings=SagaSettings(database_url=SecretStr(url))) as service:

        async def one(_: int) -> None:
            await service.run(place_order, Order(id=f"o-{next(ids)}"))

        print((await pace(one, sagas, at_once)).model_dump_json())


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(_main(*arguments()))
