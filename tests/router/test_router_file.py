"""The routing file: read at the start and when it changes; a bad one is refused whole and named line by line."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from toska_common.errors import ConfigurationError
from toska_common.routing.delta import apply_delta
from toska_tests.routers import RunningRouter, StartRouter
from toska_tests.waiting import wait_until

GOOD = """\
clusters:
  legacy: {endpoints: [{address: 127.0.0.1, port: 9001}]}
routes:
  - {name: first, match: {path: /first}, to: legacy}
"""
BETTER = GOOD + "  - {name: second, match: {path: /second}, to: legacy}\n"
BAD = GOOD + "  - {name: second, match: {path: /second}, to: legaci}\n  - {name: third, match: {}, to: legacy}\n"
LEGACY = {"endpoints": [{"address": "127.0.0.1", "port": 9009}]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mesh.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def start(start_router: StartRouter, file: Path) -> StartRouter:
    def start(**options: Any) -> AbstractAsyncContextManager[RunningRouter]:
        return start_router(**{"routes": file, "routes_interval": "20ms", **options})

    return start


async def route_names(router: RunningRouter) -> list[str]:
    return [entry["route"]["name"] for entry in await router.read("routes")]


async def wait_for_routes(router: RunningRouter, *names: str) -> None:
    async def has_them() -> bool:
        return await route_names(router) == [*names]

    await wait_until(has_them, what=f"the routes are {names}")


async def wait_for_problems(router: RunningRouter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def has_some() -> bool:
        found[:] = (await router.read("status"))["file"]["problems"]
        return bool(found)

    await wait_until(has_some, what="the file is refused")
    return found


async def test_a_change_of_the_file_reaches_a_waiting_gateway(start: StartRouter, file: Path) -> None:
    async with start() as router:
        has = await router.snapshot()
        assert [entry["source"] for entry in await router.read("routes")] == ["file"]
        file.write_text(BETTER)
        delta = await router.poll(has)
        assert [route.name for route in apply_delta(has, delta).table.routes] == ["first", "second"]


async def test_a_bad_file_is_refused_whole_with_lines_and_the_last_good_stays(start: StartRouter, file: Path) -> None:
    async with start() as router:
        before = await router.snapshot()
        file.write_text(BAD)
        problems = await wait_for_problems(router)
        assert [(problem["field"], problem["line"]) for problem in problems] == [
            ("routes[1].to", 5),
            ("routes[2].match", 6),
        ]
        assert await router.snapshot() == before
        file.write_text(BETTER)
        await wait_for_routes(router, "first", "second")
        assert (await router.read("status"))["file"]["problems"] == []


@pytest.mark.parametrize("content", [b"", b"routes: [", b"\xff"])
async def test_a_file_that_is_half_written_takes_nothing_away(start: StartRouter, file: Path, content: bytes) -> None:
    async with start() as router:
        file.write_bytes(content)
        await wait_for_problems(router)
        assert await route_names(router) == ["first"]


async def test_a_file_that_is_gone_takes_nothing_away_and_is_read_when_back(start: StartRouter, file: Path) -> None:
    async with start() as router:
        file.unlink()
        [problem] = await wait_for_problems(router)
        assert "No such file" in problem["reason"]
        assert await route_names(router) == ["first"]
        file.write_text(BETTER)
        await wait_for_routes(router, "first", "second")


async def test_a_pipe_in_its_place_is_not_waited_for(start: StartRouter, file: Path) -> None:
    async with start() as router:
        file.unlink()
        os.mkfifo(file)
        [problem] = await wait_for_problems(router)
        assert "no regular file" in problem["reason"]
        assert await route_names(router) == ["first"]


async def test_a_file_that_cannot_be_remembered_is_served_all_the_same(
    start: StartRouter, file: Path, home: Path
) -> None:
    async with start() as router:
        kept = home / "router" / "last-good-file.json"
        kept.unlink()
        kept.mkdir()  # as little can be written there as on a full disk
        file.write_text(BETTER)
        await wait_for_routes(router, "first", "second")
        assert [found.name for found in kept.parent.glob(".last-good-file.json*")] == []


async def test_a_file_that_is_swapped_by_a_link_is_read(start: StartRouter, file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.yaml"
    data.write_text(GOOD)
    link = tmp_path / "link.yaml"
    link.symlink_to(data)
    async with start(routes=link) as router:
        newer = tmp_path / "newer.yaml"
        newer.write_text(BETTER)
        swap = tmp_path / "swap"
        swap.symlink_to(newer)
        swap.replace(link)
        await wait_for_routes(router, "first", "second")


async def test_a_bad_file_at_the_start_stops_it_and_names_every_problem(start: StartRouter, file: Path) -> None:
    file.write_text(BAD)
    with pytest.raises(ConfigurationError) as caught:
        async with start():
            pass
    assert str(file) in caught.value.detail
    assert "line 5: routes[1].to" in caught.value.detail
    assert "line 6: routes[2].match" in caught.value.detail


async def test_a_restart_over_a_file_gone_bad_goes_on_with_what_was_good_last(start: StartRouter, file: Path) -> None:
    async with start() as router:
        before = await router.snapshot()
    file.write_text(BAD)
    async with start() as router:
        assert await router.snapshot() == before
        assert len(await wait_for_problems(router)) == 2
        file.write_text(BETTER)
        await wait_for_routes(router, "first", "second")


async def test_what_was_good_in_another_file_is_no_stand_in_for_a_bad_one(start: StartRouter, tmp_path: Path) -> None:
    async with start():
        pass
    other = tmp_path / "other.yaml"
    other.write_text(BAD)
    with pytest.raises(ConfigurationError):
        async with start(routes=other):
            pass


async def test_file_and_api_share_one_table_and_keep_their_own(start: StartRouter) -> None:
    async with start() as router:
        assert (await router.put("routes/extra", {"match": {"path": "/extra"}, "to": "legacy"})).status_code == 201
        assert await route_names(router) == ["first", "extra"]
        for answer in (
            await router.put("routes/first", {"match": {"path": "/x"}, "to": "legacy"}),
            await router.delete("routes/first"),
            await router.put("clusters/legacy", LEGACY),
            await router.delete("clusters/legacy"),
        ):
            assert answer.status_code == 409
            assert "routing file" in answer.json()["detail"]
        conflict = await router.put("routes/other", {"match": {"path": "/first"}, "to": "legacy"})
        assert conflict.status_code == 422
        assert '"first"' in conflict.json()["detail"]
        assert '"other"' in conflict.json()["detail"]


async def test_a_file_that_does_not_fit_the_api_s_routes_waits_until_it_does(start: StartRouter, file: Path) -> None:
    async with start() as router:
        await router.put("routes/extra", {"match": {"path": "/second"}, "to": "legacy"})
        file.write_text(BETTER)
        [problem] = await wait_for_problems(router)
        assert (problem["field"], problem["line"]) == ("routes[1].match", 5)
        assert '"extra"' in problem["reason"]
        assert await route_names(router) == ["first", "extra"]
        await router.delete("routes/extra")
        await wait_for_routes(router, "first", "second")


async def test_a_file_cannot_take_a_cluster_away_that_the_api_s_routes_lead_to(start: StartRouter, file: Path) -> None:
    async with start() as router:
        await router.put("routes/extra", {"match": {"path": "/extra"}, "to": "legacy"})
        file.write_text("routes: []\n")
        [problem] = await wait_for_problems(router)
        assert '"extra"' in problem["reason"]
        assert '"legacy"' in problem["reason"]
        assert await route_names(router) == ["first", "extra"]
