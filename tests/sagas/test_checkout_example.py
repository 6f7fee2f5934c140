"""The checkout of the examples: orders of which every step can fail, and a bank that never takes money twice."""

import contextlib
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from toska_tests.clients import http_client
from toska_tests.joined import UVICORN, Registry, Served, Stage
from toska_tests.parts import ROOT
from toska_tests.waiting import wait_until

TOKEN = "toska_admin_of_these_sagas"
ORDER = {"item": "coffee", "amount": "19.90"}


class Shop:
    """The three services."""

    def __init__(self, stage: Stage, payments: Served, warehouse: Served) -> None:
        self._stage = stage
        self._payments = payments
        self._warehouse = warehouse

    def checkout(self) -> Any:
        return self._stage.serve("", command=(UVICORN, "checkout:app"), environment=environment(self._stage))

    async def balance(self) -> str:
        return (await self._payments.get("/balance")).json()["balance"]

    async def stock(self) -> dict[str, int]:
        return (await self._warehouse.get("/stock/coffee")).json()


def environment(stage: Stage) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT / "examples"),
        "TOSKA_HOME": str(stage.folder / "home"),
        "TOSKA_SAGAS_LEASE": "4s",
        "TOSKA_SAGAS_TOKEN": TOKEN,
    }


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncGenerator[Shop]:
    registry = Registry(tmp_path)
    await registry.start()
    stage = Stage(tmp_path, registry)
    told = environment(stage)
    with (
        stage.serve("", command=(UVICORN, "payments:app"), environment=told) as payments,
        stage.serve("", command=(UVICORN, "warehouse:app"), environment=told) as warehouse,
    ):
        await registry.wait_for("payments", 1)
        await registry.wait_for("warehouse", 1)
        yield Shop(stage, payments, warehouse)
    registry.stop()


async def test_nothing_is_charged_twice_whatever_goes_wrong(shop: Shop) -> None:
    async def state(order_id: str) -> str:
        return (await checkout.get(f"/{order_id}")).json()["state"]

    async def place(order_id: str, **trouble: str) -> None:
        placed = await client.post(checkout.url + "/", json={**ORDER, "id": order_id, "trouble": trouble})
        assert placed.status_code == 202

    async def ends(order_id: str, as_: str) -> None:
        async def ended() -> bool:
            return await state(order_id) == as_

        await wait_until(ended, what=f"{order_id} is {as_}", every=0.1)

    async with http_client() as client:
        with shop.checkout() as checkout:

            async def serves() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await checkout.get("/health/ready")).status_code == 200
                return False

            await wait_until(serves, what="checkout serves")
            assert (await checkout.get("/api/v1/sagas")).status_code == 401
            await place("undone", ship="refuse")
            await place("unclear", ship="fail")
            await place("lost", charge="lose")
            await ends("undone", "compensated")
            await ends("unclear", "compensated")
            await ends("lost", "completed")
            assert await shop.balance() == "19.90"
            assert await shop.stock() == {"available": 99, "reserved": 1, "shipped": 1}
            await place("lost", charge="lose")  # the very same again
            await place("killed", charge="wait")

            async def charged() -> bool:
                return await shop.balance() == "39.80"

            await wait_until(charged, what="the money is taken, and nobody has noted it")
            checkout.program.send(signal.SIGKILL)
            await checkout.program.exit_code()
        with shop.checkout() as checkout:
            await wait_until(serves, what="checkout serves again")
            await ends("killed", "completed")
            assert await shop.balance() == "39.80"
            assert await shop.stock() == {"available": 98, "reserved": 2, "shipped": 2}
            headers = {"authorization": f"Bearer {TOKEN}"}
            told = (await checkout.get("/api/v1/sagas/killed", headers=headers)).json()
            assert [(one["step"], one["begun"]) for one in told["attempts"]] == [
                ("reserve", 1),
                ("charge", 2),
                ("ship", 1),
            ]
