"""Two routers, each a process of its own, over one database: the same snapshots, and each other's changes at once."""

import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from toska_router.book import PATIENCE
from toska_tests.ports import free_ports
from toska_tests.postgres_servers import PASSWORD, PostgresServer
from toska_tests.programs import Program, running
from toska_tests.registries import ConsulAgent
from toska_tests.routers import StartRouter
from toska_tests.waiting import wait_until

COMMAND = [sys.executable, "-m", "toska_router"]
LEGACY = {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}
WITHIN = 30.0


class Router:
    """A router's process, and its API."""

    def __init__(self, program: Program, client: httpx.AsyncClient) -> None:
        self.program = program
        self.http = client

    async def ready(self) -> bool:
        try:
            return (await self.http.get("/health/startup")).is_success
        except httpx.TransportError:
            assert self.program.returncode is None, self.program.stderr
            return False

    async def put(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.http.put(f"/api/v1/{path}", json=body, headers=headers)

    async def read(self, path: str) -> Any:
        return (await self.http.get(f"/api/v1/{path}")).raise_for_status().json()

    async def version(self) -> str:
        return (await self.read("status"))["version"]


@contextmanager
def router_process(name: str, folder: Path, database_url: str, registry_url: str) -> Generator[Router]:
    home, port = folder / name, free_ports(1)
    home.mkdir(mode=0o700, exist_ok=True)
    environment = {
        "TOSKA_HOME": str(home),
        "TOSKA_DATABASE_URL": database_url,
        "TOSKA_ROUTER_PORT": str(port),
        "TOSKA_REGISTRY_URL": registry_url,
        "TOSKA_ADMIN_TOKEN": "toska_admin_of_both",
        "TOSKA_LOG_FORMAT": "json",
    }
    headers = {"authorization": "Bearer toska_admin_of_both"}
    limits = httpx.Limits(max_keepalive_connections=0)  # the pair outlives the event loop of a test
    with running(COMMAND, folder, environment=environment) as program:
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=WITHIN, limits=limits)
        yield Router(program, client)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, agent: ConsulAgent
) -> Generator[tuple[Router, Router]]:
    """Both started at once, on a database that neither has seen; the tests of the module share them."""
    folder = tmp_path_factory.mktemp("routers")
    url = f"sqlite://{folder}/shared"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = anyio.run(server.make_database)
    anyio.run(agent.wait_until_ready)
    with router_process("one", folder, url, agent.url) as one, router_process("two", folder, url, agent.url) as two:
        yield one, two


@pytest.fixture
async def routers(pair: tuple[Router, Router]) -> tuple[Router, Router]:
    for router in pair:
        await wait_until(router.ready, within=WITHIN, what="the router has a snapshot")
    return pair


async def test_each_serves_what_the_other_changed_under_the_same_versions(routers: tuple[Router, Router]) -> None:
    one, two = routers
    assert (await one.put("clusters/legacy", LEGACY)).status_code == 201
    assert (await two.put("policies/careful", {"timeout": "5s"})).status_code == 201
    made = await one.put("routes/old", {"match": {"path": "/old"}, "to": "legacy", "policies_from": ["careful"]})
    assert (made.status_code, made.headers["x-toska-revision"]) == (201, "3")

    async def same() -> bool:
        found = await one.read("snapshot"), await two.read("snapshot")
        return found[0] == found[1] and len(found[0]["table"]["routes"]) == 1

    await wait_until(same, within=WITHIN, what="both serve the same snapshot")
    assert await one.version() == await two.version()
    assert await two.read("revisions") == await one.read("revisions")


async def test_a_change_at_one_is_served_by_the_other_soon(routers: tuple[Router, Router]) -> None:
    one, two = routers
    times: list[float] = []
    for number in range(5):
        before = await two.version()
        started = time.monotonic()
        await one.put("clusters/soon", {**LEGACY, "panic_percent": number + 1})

        async def has_it(before: str = before) -> bool:
            return await two.version() != before

        await wait_until(has_it, within=WITHIN, every=0.005, what="the change has come")
        times.append(time.monotonic() - started)
    print(f"served after {[round(each * 1000) for each in times]} ms")


async def test_of_two_changes_of_the_same_version_one_is_refused(routers: tuple[Router, Router]) -> None:
    one, two = routers
    await one.put("clusters/contended", LEGACY)
    for number in range(1, 6):
        tag = (await one.http.get("/api/v1/clusters/contended")).headers["etag"]
        answers: list[httpx.Response] = []

        async def change(router: Router, percent: int, tag: str = tag, answers: list[httpx.Response] = answers) -> None:
            body = {**LEGACY, "panic_percent": percent}
            answers.append(await router.put("clusters/contended", body, **{"if-match": tag}))

        async with anyio.create_task_group() as group:
            group.start_soon(change, one, number)
            group.start_soon(change, two, number + 50)
        assert sorted(answer.status_code for answer in answers) == [200, 412]
        [made] = [answer for answer in answers if answer.status_code == 200]

        async def holds(version: str = made.json()["version"]) -> bool:
            return (await one.read("clusters/contended"))["version"] == version

        await wait_until(holds, within=WITHIN, what="the one that was made holds at both")
    assert len(await two.read("clusters/contended/history")) == 6


async def test_changes_on_both_at_once_lose_nothing(routers: tuple[Router, Router]) -> None:
    async def change(router: Router, name: str) -> None:
        for number in range(10):
            assert (await router.put(f"clusters/{name}-{number}", LEGACY)).status_code == 201

    async with anyio.create_task_group() as group:
        for router, name in zip(routers, ("left", "right"), strict=True):
            group.start_soon(change, router, name)
    wanted = {f"{name}-{number}" for name in ("left", "right") for number in range(10)}

    async def all_there() -> bool:
        return all([wanted <= {entry["name"] for entry in await router.read("clusters")} for router in routers])

    await wait_until(all_there, within=WITHIN, what="both have all")
    assert await routers[0].version() == await routers[1].version()


async def test_a_router_that_is_killed_in_the_middle_leaves_whole_changes(routers: tuple[Router, Router]) -> None:
    one, two = routers
    confirmed: list[int] = []

    async def change() -> None:
        with suppress(httpx.TransportError):
            for number in range(1000):
                made = await one.put(f"clusters/killed-{number}", LEGACY)
                confirmed.append(int(made.headers["x-toska-revision"]))

    async with anyio.create_task_group() as group:
        group.start_soon(change)
        await wait_until(lambda: len(confirmed) > 10, within=WITHIN, what="changes are under way")
        os.kill(one.program.pid, signal.SIGKILL)
    assert (await two.put("clusters/after", LEGACY)).status_code == 201
    revisions = await two.read("revisions?limit=500")
    made = [item for revision in revisions for item in revision["changes"] if item["name"].startswith("killed-")]
    # What was confirmed is there; at most the one that was under way is there besides, and whole.
    assert len(confirmed) <= len(made) <= len(confirmed) + 1
    assert {revision["revision"] for revision in revisions} >= set(confirmed)

    async def has_all() -> bool:
        return {item["name"] for item in made} <= {entry["name"] for entry in await two.read("clusters")}

    # The one that was under way may have been committed after ours, and is then noticed as any other's is.
    await wait_until(has_all, within=WITHIN, what="the other has all that was made")


async def test_while_postgresql_is_away_what_is_known_goes_on_and_changes_are_refused(
    start_router: StartRouter, postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = await postgres.make_database()
    async with start_router(database_url=url) as router:
        await router.put("clusters/legacy", LEGACY)
        before = await router.snapshot()
        postgres.kill()
        try:
            refused = await router.put("clusters/other", LEGACY)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["type"] == "/problems/database-unavailable"
            assert PASSWORD not in refused.text
            assert (await router.http.get("/api/v1/revisions")).status_code == 503
            assert await router.snapshot() == before
            assert (await router.put("clusters/other?dry_run=true", LEGACY)).status_code == 200
            assert (await router.read("status"))["database"]["connected"] is False
            assert (await router.http.get("/health/ready")).status_code == 200
            other = tmp_path / "late"
            other.mkdir()
            async with start_router(home=other, database_url=url) as late:
                assert (await late.http.get("/api/v1/snapshot")).status_code == 503
                assert (await late.put("clusters/other", LEGACY)).status_code == 503
                await postgres.start()
                assert "legacy" in (await late.snapshot()).table.clusters
        finally:
            if not await postgres.answers():
                await postgres.start()

        async def connected() -> bool:
            return (await router.read("status"))["database"]["connected"]

        await wait_until(connected, within=WITHIN, what="the database is back")
        assert (await router.put("clusters/other", LEGACY)).status_code == 201
        assert [revision["revision"] for revision in await router.read("revisions")] == [2, 1]
    assert PASSWORD not in caplog.text


async def test_a_postgresql_that_hangs_is_given_up_on_in_time(
    start_router: StartRouter, postgres: PostgresServer
) -> None:
    async with start_router(database_url=await postgres.make_database()) as router:
        await router.put("clusters/legacy", LEGACY)
        postgres.freeze()
        try:
            started = time.monotonic()
            refused = await router.http.put(
                "/api/v1/clusters/other", json=LEGACY, headers=router.token("admin"), timeout=WITHIN
            )
            assert refused.status_code == 503
            assert time.monotonic() - started < PATIENCE.total_seconds() * 2
            assert (await router.read("clusters/legacy"))["name"] == "legacy"
        finally:
            postgres.thaw()

        async def made() -> bool:
            return (await router.put("clusters/other", LEGACY)).is_success

        await wait_until(made, within=WITHIN, what="changes can be made again")
