"""Sagas that go forwards and back, in one process that stays alive."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, SecretStr
from toska_common import trace
from toska_common.contracts.sagas import SagaDetail, SagaState
from toska_common.errors import InvalidInput
from toska_common.sagas import (
    Attempt,
    IllegalSagaState,
    Retry,
    Run,
    Saga,
    SagaIdTaken,
    Sagas,
    SagaSettings,
    StepFailed,
    UnknownSaga,
    saga,
    step,
)
from toska_common.sagas.errors import SagaFailed
from toska_tests.saga_shop import QUICK, Order, books, charge, place_order, reserve, ship
from toska_tests.waiting import wait_until

WITHIN = timedelta(seconds=30)


@saga("another-carrier")
async def another_carrier(order: Order, run: Run) -> str:
    """Goes on after a step that failed."""
    await run(reserve, order)
    try:
        await run(ship, order)
    except StepFailed as error:
        await run(charge, order)
        return error.outcome
    return "shipped"


@saga("hasty", timeout=timedelta(milliseconds=1500))
async def hasty(order: Order, run: Run) -> None:
    await run(reserve, order)
    await run(charge, order)


@saga("faulty")
async def faulty(order: Order, run: Run) -> None:
    await run(reserve, order)
    raise ZeroDivisionError("in the saga itself")


@saga("twice")
async def twice(order: Order, run: Run) -> list[str]:
    return [(await run(reserve, order)).number for _ in range(2)]


@step(retry=Retry(attempts=100, base=timedelta(minutes=1), longest=timedelta(minutes=1)))
async def patient(order: Order, attempt: Attempt) -> None:
    books.call(attempt, "patient")
    raise ConnectionError("not today")


@saga("waiting")
async def waiting(order: Order, run: Run) -> None:
    await run(reserve, order)
    await run(patient, order)


@saga("traced")
async def traced(order: Order, run: Run) -> str:
    return await run(tell_trace, order)


@step()
async def tell_trace(_: Order, attempt: Attempt) -> str:
    context = trace.current.get()
    return "" if context is None else context.trace_id


class Shape(BaseModel):
    text: str = ""
    number: float = 0.0


@step(retry=Retry(attempts=1))
async def odd(shape: Shape, attempt: Attempt) -> Shape:
    if shape.text:
        raise RuntimeError(f"upstream said {shape.text}")
    return Shape(number=float("nan"))


@odd.compensation()
async def even_out(shape: Shape, result: Shape | None, attempt: Attempt) -> None: ...


@saga("odd")
async def odd_saga(shape: Shape, run: Run) -> float:
    if shape.number:
        return shape.number / 1e-308
    return (await run(odd, shape)).number


ALL: list[Saga[Any, object]] = [place_order, another_carrier, hasty, faulty, twice, waiting, traced, odd_saga]  # type: ignore[list-item]


@pytest.fixture(scope="module")
async def sagas(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Sagas]:
    books.open(tmp_path_factory.mktemp("books"))
    settings = SagaSettings(database_url=SecretStr(database_url), home=Path("/nowhere"))
    async with Sagas("orders", ALL, settings=settings, registry=CollectorRegistry()) as running:
        yield running


async def ended(sagas: Sagas, saga_id: str) -> SagaDetail:
    return await sagas.wait(saga_id, timeout=WITHIN)


async def test_steps_are_done_in_their_order_and_each_once(sagas: Sagas) -> None:
    saga_id = await sagas.start(place_order, Order(items=3))
    done = await ended(sagas, saga_id)
    assert done.state is SagaState.COMPLETED
    assert books.calls(saga_id) == ["reserve", "charge", "ship"]
    assert books.effects(saga_id) == {"reserve": 3, "charge": 3, "ship": 3}
    assert done.result == {"number": done.attempts[1].idempotency_key}


async def test_steps_are_undone_in_reverse_order(sagas: Sagas) -> None:
    saga_id = await sagas.start(place_order, Order(refuse="ship"))
    done = await ended(sagas, saga_id)
    assert done.state is SagaState.COMPENSATED
    assert done.failure is not None
    assert (done.failure.step, done.failure.outcome, done.failure.detail) == ("ship", "refused", "no ship for you")
    # What was refused did nothing, so there is nothing of it to undo.
    assert books.calls(saga_id) == ["reserve", "charge", "ship", "undo charge", "undo reserve"]
    assert books.effects(saga_id) == {"reserve": 0, "charge": 0}


async def test_a_step_that_fails_is_tried_again_under_the_same_key(sagas: Sagas) -> None:
    saga_id = await sagas.start(place_order, Order(fail={"charge": 2}))
    done = await ended(sagas, saga_id)
    assert done.state is SagaState.COMPLETED
    tries = [attempt for attempt in done.attempts if attempt.step == "charge"]
    assert [attempt.number for attempt in tries] == [1, 2, 3]
    assert len({attempt.idempotency_key for attempt in tries}) == 1
    assert [attempt.detail for attempt in tries] == ["ConnectionError: no route to charge"] * 2 + [""]


async def test_a_step_whose_outcome_is_not_known_is_undone_too(sagas: Sagas) -> None:
    saga_id = await sagas.start(place_order, Order(hang="ship"))
    done = await ended(sagas, saga_id)
    assert done.failure is not None
    assert done.failure.outcome == "timed-out"
    calls = books.calls(saga_id)
    assert calls == ["reserve", "charge", "ship", "ship", "ship", "undo ship", "undo charge", "undo reserve"]
    assert books.effects(saga_id) == {"reserve": 0, "charge": 0, "ship": 0}


async def test_compensations_are_tried_until_they_succeed(sagas: Sagas) -> None:
    saga_id = await sagas.start(place_order, Order(refuse="ship", fail={"undo charge": 2}))
    assert (await ended(sagas, saga_id)).state is SagaState.COMPENSATED
    assert books.calls(saga_id)[3:] == ["undo charge"] * 3 + ["undo reserve"]


async def test_a_saga_that_cannot_be_undone_is_stuck_until_somebody_resumes_it(sagas: Sagas) -> None:
    saga_id = await sagas.start(place_order, Order(refuse="ship", fail={"undo charge": 4}))
    stuck = await ended(sagas, saga_id)
    assert stuck.state is SagaState.STUCK
    assert "compensation of charge failed 3 times" in stuck.stuck
    assert "no route to undo charge" in stuck.stuck
    await sagas.resume(saga_id)
    resumed = await ended(sagas, saga_id)
    assert (resumed.state, resumed.resumes) == (SagaState.COMPENSATED, 1)
    assert books.calls(saga_id)[3:] == ["undo charge"] * 5 + ["undo reserve"]
    with pytest.raises(IllegalSagaState):
        await sagas.resume(saga_id)


async def test_starting_a_saga_twice_is_one_saga(sagas: Sagas) -> None:
    saga_id = f"order-{uuid4()}"
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(lambda: sagas.start(place_order, Order(), id=saga_id))
    await ended(sagas, saga_id)
    await sagas.start(place_order, Order(), id=saga_id)
    assert books.calls(saga_id) == ["reserve", "charge", "ship"]
    with pytest.raises(SagaIdTaken):
        await sagas.start(place_order, Order(items=2), id=saga_id)
    with pytest.raises(SagaIdTaken):
        await sagas.start(twice, Order(), id=saga_id)


async def test_a_saga_may_go_on_after_a_step_that_failed(sagas: Sagas) -> None:
    saga_id = await sagas.start(another_carrier, Order(refuse="ship"))
    done = await ended(sagas, saga_id)
    assert (done.state, done.result) == (SagaState.COMPLETED, "refused")
    assert books.effects(saga_id) == {"reserve": 1, "charge": 1}


async def test_a_saga_whose_time_is_over_turns_back(sagas: Sagas) -> None:
    saga_id = await sagas.start(hasty, Order(hang="charge"))
    done = await ended(sagas, saga_id)
    assert done.state is SagaState.COMPENSATED
    assert done.failure is not None
    assert (done.failure.step, done.failure.outcome) == ("charge", "expired")
    assert books.effects(saga_id) == {"reserve": 0, "charge": 0}


async def test_cancelling_interrupts_the_step_and_undoes_all(sagas: Sagas) -> None:
    saga_id = await sagas.start(place_order, Order(hang="charge"))
    await wait_until(lambda: "charge" in books.effects(saga_id))
    await sagas.cancel(saga_id, "changed their mind")
    done = await ended(sagas, saga_id)
    assert done.state is SagaState.CANCELLED
    assert books.calls(saga_id) == ["reserve", "charge", "undo charge", "undo reserve"]
    assert books.effects(saga_id) == {"reserve": 0, "charge": 0}
    with pytest.raises(IllegalSagaState):
        await sagas.cancel(saga_id)


async def test_cancelling_ends_a_pause_between_attempts(sagas: Sagas) -> None:
    saga_id = await sagas.start(waiting, Order())
    await wait_until(lambda: "patient" in books.calls(saga_id))
    await sagas.cancel(saga_id)
    assert (await ended(sagas, saga_id)).state is SagaState.CANCELLED
    assert books.calls(saga_id) == ["reserve", "patient", "undo reserve"]


async def test_a_saga_that_raises_is_undone(sagas: Sagas) -> None:
    saga_id = await sagas.start(faulty, Order())
    done = await ended(sagas, saga_id)
    assert done.failure is not None
    assert (done.failure.step, done.failure.detail) == ("", "ZeroDivisionError: in the saga itself")
    assert books.effects(saga_id) == {"reserve": 0}


async def test_a_step_that_is_done_twice_has_two_keys(sagas: Sagas) -> None:
    keys = await sagas.run(twice, Order())
    assert len(set(keys)) == 2


async def test_steps_belong_to_the_trace_that_the_saga_was_started_in(sagas: Sagas) -> None:
    context = trace.new_trace(sampled=True)
    token = trace.current.set(context)
    saga_id = await sagas.start(traced, Order())
    trace.current.reset(token)
    done = await ended(sagas, saga_id)
    assert done.result == done.trace_id == context.trace_id


async def test_who_waits_for_a_result_is_told_that_there_is_none(sagas: Sagas) -> None:
    with pytest.raises(SagaFailed) as failed:
        await sagas.run(place_order, Order(refuse="reserve"))
    assert failed.value.extensions["state"] == "compensated"


async def test_wrong_input_starts_nothing(sagas: Sagas) -> None:
    with pytest.raises(InvalidInput):
        await sagas.start(place_order, Order(items=1), id="with spaces")
    with pytest.raises(InvalidInput) as wrong:
        await sagas.start(place_order, {"items": "many"}, id="wrong")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert wrong.value.extensions["problems"][0]["field"] == "items"
    with pytest.raises(UnknownSaga):
        await sagas.get("wrong")


async def test_sagas_are_listed_page_by_page(sagas: Sagas) -> None:
    started = [await sagas.start(traced, Order()) for _ in range(3)]
    first = await sagas.list(name="traced", limit=2)
    second = await sagas.list(name="traced", limit=2, before=first.next)
    assert [one.id for one in [*first.sagas, *second.sagas]][:3] == started[::-1]
    stuck = await sagas.list(state=SagaState.STUCK)
    assert all(one.state is SagaState.STUCK for one in stuck.sagas)
    with pytest.raises(InvalidInput):
        await sagas.list(before="yesterday")


def test_pauses_double_up_to_a_longest() -> None:
    retry = Retry(attempts=9, base=timedelta(seconds=1), longest=timedelta(seconds=6))
    assert [retry.pause_s(failed, lambda: 0.0) for failed in (1, 2, 3, 4, 2000)] == [1, 2, 4, 6, 6]
    assert retry.pause_s(1, lambda: 1.0) == 0.5
    assert QUICK.attempts == 3


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (Shape(text="a\0b"), "upstream said a\ufffdb"),
        (Shape(text="a\ud800b"), "upstream said a?b"),
        (Shape(), "ValueError: it holds NaN or infinity"),
        (Shape(number=1e308), "ValueError: it holds NaN or infinity"),
    ],
    ids=["a NUL", "half a pair", "NaN of a step", "infinity of a saga"],
)
async def test_what_no_database_keeps_turns_a_saga_back_and_holds_up_nothing(
    sagas: Sagas, shape: Shape, told: str
) -> None:
    done = await ended(sagas, await sagas.start(odd_saga, shape))
    assert done.state is SagaState.COMPENSATED
    assert done.failure is not None
    assert told in done.failure.detail


async def test_an_input_that_no_database_keeps_is_refused(sagas: Sagas) -> None:
    with pytest.raises(InvalidInput, match="input of odd: it holds NaN or infinity"):
        await sagas.start(odd_saga, Shape(number=float("inf")))
