"""`toska sagas` against a mesh that runs, with a service whose orders are sagas."""

import io
import json
from collections.abc import AsyncGenerator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import httpx
import pytest
from anyio.to_thread import run_sync
from toska_cli.main import main
from toska_cli.saga_timeline import draw
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.contracts.sagas import OutcomeKind, SagaAttempt, SagaDetail, SagaFailure, SagaState
from toska_common.credentials import sagas_token
from toska_tests.clients import http_client
from toska_tests.meshes import RunningMesh, joined_app, toska_up
from toska_tests.parts import ROOT
from toska_tests.ports import free_port
from toska_tests.waiting import wait_until

APP = ROOT / "tests" / "toska_tests" / "apps" / "saga_orders.py"


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningMesh]:
    async with toska_up(tmp_path_factory.mktemp("mesh"), "--no-examples") as running:
        module = ModuleType("saga_orders")
        module.__file__ = str(APP)
        environment = {"PYTHONPATH": str(ROOT / "tests"), "TOSKA_HOME": str(running.home)}
        async with joined_app(running, module, "orders", environment=environment):
            yield running


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncGenerator[httpx.AsyncClient]:
    async with http_client(base_url=f"{mesh.gateway}/orders", timeout=30) as made:
        yield made


async def toska(mesh: RunningMesh, *words: str, code: int = 0) -> str:
    """What the command says, run in this process: starting one for each takes longer than all the rest."""
    out, err = io.StringIO(), io.StringIO()

    def run() -> int | str | None:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(["sagas", *words, "--home", str(mesh.home)])
        return ended.value.code

    assert (await run_sync(run) or 0) == code, out.getvalue() + err.getvalue()
    return out.getvalue() or err.getvalue()


async def place(client: httpx.AsyncClient, saga_id: str, **order: Any) -> None:
    assert (await client.post(f"/orders/{saga_id}", json=order)).status_code == 202


async def until(mesh: RunningMesh, saga_id: str, state: str) -> None:
    async with http_client(headers=mesh.authorization("admin"), timeout=40) as client:
        url = f"{mesh.url('gateway_admin')}/api/v1/gateway/sagas/orders/{saga_id}"

        async def is_so() -> bool:
            return (await client.get(url)).json()["state"] == state

        await wait_until(is_so, what=f"{saga_id} is {state}", every=0.05)


async def test_a_stuck_saga_is_found_understood_and_made_to_go_on(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    await place(client, "a-1")
    await place(client, "a-2", refuse="ship", fail={"undo charge": 3})
    await until(mesh, "a-2", "stuck")
    assert "orders" in await toska(mesh, "services")
    listed = await toska(mesh, "list", "--state", "stuck")
    assert "a-2" in listed
    assert "a-1" not in listed
    drawn = await toska(mesh, "show", "orders", "a-2", code=1)
    assert "turned back: ship refused: no ship for you" in drawn
    assert "toska sagas resume orders a-2" in drawn
    assert "● compensated" in await toska(mesh, "resume", "orders", "a-2", "--wait")
    await until(mesh, "a-1", "completed")
    names = [item["id"] for item in json.loads(await toska(mesh, "list", "orders", "--name", "place-order", "--json"))]
    assert {"a-1", "a-2"} <= set(names)
    assert await toska(mesh, "list", "orders", "--name", "other") == "no sagas\n"
    assert "not stuck" in await toska(mesh, "resume", "orders", "a-1", code=1)


async def test_a_saga_is_cancelled_and_waited_for(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    await place(client, "b-1", hang="charge")
    await until(mesh, "b-1", "running")
    cancelled = json.loads(await toska(mesh, "cancel", "orders", "b-1", "-m", "fraud", "--wait", "--json"))
    assert cancelled["state"] == "cancelled"
    assert "cancelled" in await toska(mesh, "show", "orders", "b-1")


async def test_one_instance_is_asked_directly_by_a_token_of_its_sagas_alone(
    mesh: RunningMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await toska(mesh, "token", "orders")).strip()
    assert token == sagas_token(mesh.token("admin"), "orders")
    async with http_client() as client:
        found = await client.get(f"{mesh.url('registry')}/v1/health/service/orders")
    (entry,) = found.json()
    url = f"http://127.0.0.1:{entry['Service']['Port']}"
    monkeypatch.setenv("TOSKA_SAGAS_TOKEN", token)
    assert "ID" in await toska(mesh, "list", "orders", "--direct", url)
    monkeypatch.setenv("TOSKA_SAGAS_TOKEN", sagas_token(mesh.token("admin"), "payments"))
    assert "not known" in await toska(mesh, "list", "orders", "--direct", url, code=1)
    assert "--admin and --direct" in await toska(mesh, "list", "orders", "--direct", url, "--admin", url, code=2)


async def test_errors_say_what_to_do(mesh: RunningMesh) -> None:
    assert "no service payments is registered" in await toska(mesh, "list", "payments", code=1)
    assert "there is no saga nobody" in await toska(mesh, "show", "orders", "nobody", code=1)
    assert "has no API of sagas: app.include_router" in await toska(mesh, "list", "toska-gateway", code=1)
    assert "name the service" in await toska(mesh, "list", "--direct", "http://127.0.0.1:1", code=2)
    assert "write the URL of orders" in await toska(mesh, "list", "orders", "--direct", "orders", code=2)


async def test_a_service_that_is_away_does_not_hide_the_others(mesh: RunningMesh, client: httpx.AsyncClient) -> None:
    await place(client, "c-1")
    gone = ServiceRegistration("gone", "gone-1", "127.0.0.1", free_port(), meta={"toska-sagas": "/api/v1/sagas"})
    async with ConsulClient.open(mesh.url("registry"), token=mesh.token("join")) as consul:
        await consul.register_service(gone)
        told = await toska(mesh, "list", "--json", code=1)
        assert "c-1" in [item["id"] for item in json.loads(told)]
        assert "gone at 127.0.0.1" in await toska(mesh, "list", "gone", code=1)
        await consul.deregister_service("gone-1")


BEGAN = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def attempt(step: str, at: float, outcome: OutcomeKind | None, **more: Any) -> SagaAttempt:
    given: dict[str, Any] = {
        "step": step,
        "occurrence": 1,
        "compensation": False,
        "number": 1,
        "begun": 1,
        "executor": "orders/0.1",
        "idempotency_key": "k",
        "started_at": BEGAN + timedelta(seconds=at),
        "finished_at": None if outcome is None else BEGAN + timedelta(seconds=at + 2),
        "outcome": outcome,
    }
    return SagaAttempt.model_validate(given | more)


def detail(state: SagaState, attempts: list[SagaAttempt], **more: Any) -> SagaDetail:
    given: dict[str, Any] = {
        "id": "a-1",
        "name": "place-order",
        "version": 1,
        "state": state,
        "created_at": BEGAN,
        "updated_at": BEGAN,
        "executor": "orders/0.1",
        "attempts": attempts,
    }
    return SagaDetail.model_validate(given | more)


def test_a_timeline_shows_each_attempt_where_it_was_and_the_way_back() -> None:
    saga = detail(
        SagaState.COMPENSATED,
        [
            attempt("reserve", 0, OutcomeKind.DONE),
            attempt("charge", 2, OutcomeKind.FAILED, detail="no route"),
            attempt("charge", 4, OutcomeKind.REFUSED, number=2, detail="declined"),
            attempt("reserve", 6, OutcomeKind.DONE, compensation=True, begun=2),
        ],
        finished_at=BEGAN + timedelta(seconds=8),
        failure=SagaFailure(step="charge", outcome="refused", detail="declined"),
    )
    lines = list(draw(saga, BEGAN))
    assert lines[-6:] == [
        "   0.000 s  │ reserve         done        2.0 s  ██████··················",
        "   2.000 s  ✘ charge          failed      2.0 s  ······██████············  no route",
        "   4.000 s  ✘ charge, try 2   refused     2.0 s  ············██████······  declined",
        "            ╰─╮ turned back: charge refused: declined",
        "   6.000 s    │ undo reserve  done        2.0 s  ··················██████"
        "  processes died in the middle of it: begun 2 times",
        "   8.000 s    ● compensated",
    ]


def test_a_timeline_tells_an_attempt_that_runs_from_one_whose_process_died() -> None:
    now = BEGAN + timedelta(seconds=10)
    running = list(draw(detail(SagaState.RUNNING, [attempt("charge", 0, None)]), now))
    assert "running" in running[-2]
    assert "○ under way" in running[-1]
    taken_over = detail(SagaState.RUNNING, [attempt("charge", 0, None)], executor="orders/1.1")
    assert "died" in list(draw(taken_over, now))[-2]
    stuck = list(draw(detail(SagaState.STUCK, [], stuck="no carrier"), now))
    assert stuck[-1].endswith("■ stuck: no carrier")
