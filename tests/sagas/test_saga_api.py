"""The management API of sagas, over HTTP."""

from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import SecretStr
from toska_common import problem
from toska_common.clock import now_utc
from toska_common.credentials import sagas_token
from toska_common.meshfile import MeshFile, write_mesh_file
from toska_common.redaction import redact_text
from toska_common.sagas import Sagas, SagaSettings, saga_routes
from toska_tests.saga_shop import Order, books, place_order
from toska_tests.waiting import wait_until

BASE = "/api/v1/sagas"
TOKEN = {"authorization": "Bearer toska_admin_test"}
REGISTRY = CollectorRegistry()


@pytest.fixture(scope="module")
async def sagas(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Sagas]:
    home = tmp_path_factory.mktemp("home")
    books.open(home)
    (home / "token").write_text("toska_admin_test\n")
    settings = SagaSettings(home=home, token_file=home / "token")
    async with Sagas("orders", [place_order], settings=settings, registry=REGISTRY) as running:
        yield running


@pytest.fixture
async def client(sagas: Sagas) -> AsyncGenerator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(saga_routes(sagas))
    problem.install(app)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://orders", headers=TOKEN) as made:
        yield made


async def test_everything_needs_the_token(client: httpx.AsyncClient) -> None:
    for method, path in (("GET", ""), ("GET", "/a"), ("POST", "/a/cancel"), ("POST", "/a/resume")):
        without = await client.request(method, BASE + path, headers={"authorization": ""})
        wrong = await client.request(method, BASE + path, headers={"authorization": "Bearer toska_admin_other"})
        assert (without.status_code, wrong.status_code) == (401, 401)
        assert without.headers["content-type"] == "application/problem+json"


async def test_without_a_token_of_its_own_a_service_lets_nobody_in(tmp_path: Path) -> None:
    closed = Sagas("orders", [], settings=SagaSettings(home=tmp_path, token=SecretStr("")))
    app = FastAPI()
    app.include_router(saga_routes(closed))
    problem.install(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://orders") as client:
        for authorization in ("", "Bearer ", "Bearer  ", "Bearer x"):
            answer = await client.get(BASE, headers={"authorization": authorization})
            assert answer.status_code == 401


async def test_the_token_of_the_mesh_that_is_found_opens_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ".toska"
    (tmp_path / "examples").mkdir()
    monkeypatch.delenv("TOSKA_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path / "examples")
    app = FastAPI()
    app.include_router(saga_routes(Sagas("orders", [], settings=SagaSettings())))
    problem.install(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://orders") as client:
        nobodys = await client.get(BASE, headers=TOKEN)
        assert (nobodys.status_code, "TOSKA_SAGAS_TOKEN_FILE" in nobodys.json()["detail"]) == (401, True)
        home.mkdir()
        (home / "admin.token").write_text("toska_admin_test\n")
        write_mesh_file(MeshFile(home=home, pid=1, started_at=now_utc(), urls={}))
        listed = await client.get(BASE, headers=TOKEN)
        assert (listed.status_code, listed.json()["sagas"]) == (200, [])


async def test_the_token_of_a_services_sagas_opens_them_and_no_others(client: httpx.AsyncClient) -> None:
    for service, status in (("orders", 200), ("payments", 401)):
        token = sagas_token("toska_admin_test", service)
        answer = await client.get(BASE, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status
        assert "toska_sagas_***" in redact_text(f"shown {token}")


async def test_a_saga_is_shown_with_its_history(client: httpx.AsyncClient, sagas: Sagas) -> None:
    saga_id = await sagas.start(place_order, Order(refuse="ship", fail={"charge": 1}))
    await sagas.wait(saga_id)
    shown = (await client.get(f"{BASE}/{saga_id}")).json()
    assert (shown["state"], shown["failure"]["step"]) == ("compensated", "ship")
    assert [(one["step"], one["compensation"], one["number"], one["outcome"]) for one in shown["attempts"]] == [
        ("reserve", False, 1, "done"),
        ("charge", False, 1, "failed"),
        ("charge", False, 2, "done"),
        ("ship", False, 1, "refused"),
        ("charge", True, 1, "done"),
        ("reserve", True, 1, "done"),
    ]
    listed = (await client.get(BASE, params={"state": "compensated", "name": "place-order"})).json()
    assert saga_id in [one["id"] for one in listed["sagas"]]


async def test_sagas_are_steered(client: httpx.AsyncClient, sagas: Sagas) -> None:
    saga_id = await sagas.start(place_order, Order(hang="charge", fail={"undo charge": 3}))
    await wait_until(lambda: "charge" in books.effects(saga_id))
    cancelled = await client.post(f"{BASE}/{saga_id}/cancel", json={"reason": "fraud"})
    assert (cancelled.status_code, cancelled.json()["cancel_requested"]) == (202, True)
    assert (await sagas.wait(saga_id)).state == "stuck"
    assert (await client.post(f"{BASE}/{saga_id}/resume")).status_code == 202
    assert (await sagas.wait(saga_id)).state == "cancelled"
    again = await client.post(f"{BASE}/{saga_id}/resume")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/illegal-saga-state")


async def test_bad_requests_say_what_is_wrong(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{BASE}/unknown")).status_code == 404
    for params in ({"limit": "0"}, {"state": "lost"}, {"before": "yesterday"}):
        answer = await client.get(BASE, params=params)
        assert answer.status_code == 422
        assert next(iter(params)) in answer.json()["problems"][0]["field"]
    assert (await client.get(f"{BASE}/with spaces")).json()["problems"][0]["field"] == "id"
    assert (await client.post(f"{BASE}/unknown/cancel", json={"because": "?"})).status_code == 422


async def test_metrics_tell_of_attempts_and_ends(sagas: Sagas) -> None:
    await sagas.wait(await sagas.start(place_order, Order()))
    told = generate_latest(REGISTRY).decode()
    assert 'toska_sagas_ended_total{saga="place-order",state="completed"} 1.0' in told
    labels = 'kind="action",outcome="done",saga="place-order",step="charge"'
    assert f"toska_sagas_attempt_duration_seconds_count{{{labels}}}" in told
