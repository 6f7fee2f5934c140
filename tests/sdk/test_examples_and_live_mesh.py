"""The examples as their docstrings say to run them, in a mesh as users' tests get one."""

from datetime import timedelta
from pathlib import Path

import pytest
from toska_common.testing import FakeClock, MeshNotStarted, live_mesh
from toska_tests.clients import http_client
from toska_tests.joined import UVICORN, Registry, Stage
from toska_tests.parts import ROOT
from toska_tests.waiting import wait_until


async def test_orders_are_paid_by_payments_through_the_gateway(tmp_path: Path) -> None:
    with live_mesh() as mesh:
        stage = Stage(tmp_path, Registry(tmp_path))
        environment = {**mesh.environment, "PYTHONPATH": str(ROOT / "examples")}
        with (
            stage.serve("", command=(UVICORN, "payments:app"), environment=environment) as payments,
            stage.serve("", command=(UVICORN, "orders:app"), environment=environment),
        ):
            async with http_client(base_url=mesh.urls["gateway"]) as client:

                async def is_served() -> bool:
                    return (await client.get("/orders/42")).status_code == 200

                await wait_until(is_served, what="orders answers and reaches payments")
                seeded = (await client.get("/orders/42")).json()
                placed = await client.post("/orders", json={"item": "tea", "amount": "20000.00"})
                listed = (await client.get("/orders")).json()
                refused = await client.post("/orders", json={"item": "", "amount": "-1"})
                missing = await client.get("/orders/7")
                docs = (await client.get("/orders/docs")).text
        assert (seeded["fee_today"], seeded["fee_quoted_by"]["port"]) == ("0.53", payments.port)
        assert placed.status_code == 201
        assert placed.json()["payment"]["status"] == "declined"
        assert placed.json()["payment"]["served_by"]["pid"] == seeded["fee_quoted_by"]["pid"]
        assert [order["id"] for order in listed] == [42, placed.json()["id"]]
        assert {problem["field"] for problem in refused.json()["problems"]} == {"body.item", "body.amount"}
        assert (missing.status_code, missing.json()["order_id"]) == (404, 7)
        assert "/orders/openapi.json" in docs


def test_mesh_that_cannot_start_says_why() -> None:
    with pytest.raises(MeshNotStarted, match="--no-such-option"), live_mesh("--no-such-option"):
        pass


def test_fake_clock_stands_still_until_it_is_moved() -> None:
    clock = FakeClock()
    before = clock.now(), clock.monotonic()
    assert (clock.now(), clock.monotonic()) == before
    clock.advance(seconds=1.5)
    assert (clock.now() - before[0], clock.monotonic() - before[1]) == (timedelta(seconds=1.5), 1.5)
    with pytest.raises(ValueError, match="back"):
        clock.advance(seconds=-1)
