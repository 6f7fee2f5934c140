"""Where the API's routes, clusters and policies are kept: in a database, with all that an older release had."""

import json
from pathlib import Path

import pytest
from toska_common.errors import ConfigurationError
from toska_tests.routers import StartRouter

LEGACY = {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}
OLD = {"match": {"path_prefix": "/old"}, "to": "legacy"}
KEPT = {"clusters": {"legacy": LEGACY}, "routes": [{"name": "old", **OLD}]}


@pytest.fixture
def old_file(home: Path) -> Path:
    path = home / "router" / "routes.json"
    path.parent.mkdir()
    path.write_text(json.dumps(KEPT))
    return path


async def test_what_an_older_release_kept_is_taken_over_once(start_router: StartRouter, old_file: Path) -> None:
    async with start_router() as router:
        assert [entry["route"]["name"] for entry in await router.read("routes")] == ["old"]
        [revision] = await router.read("revisions")
        assert (revision["revision"], revision["source"]) == (1, "import")
        await router.delete("routes/old")
    assert not old_file.exists()
    assert json.loads((old_file.parent / "routes.json.taken-over").read_text()) == KEPT
    async with start_router() as router:
        assert await router.read("routes") == []


async def test_an_old_file_beside_a_database_with_revisions_is_left_out(
    start_router: StartRouter, old_file: Path
) -> None:
    content = old_file.read_text()
    old_file.unlink()
    async with start_router() as router:
        await router.put("clusters/other", LEGACY)
    old_file.write_text(content)
    async with start_router() as router:
        assert [entry["name"] for entry in await router.read("clusters")] == ["other"]
    assert not old_file.exists()


@pytest.mark.parametrize("damage", [b"", b'{"routes": [', b'{"routes": [{"name": "x"}]}', b"\x00\xff"])
async def test_an_old_file_that_cannot_be_read_is_kept_aside(
    start_router: StartRouter, old_file: Path, damage: bytes
) -> None:
    old_file.write_bytes(damage)
    async with start_router() as router:
        assert await router.read("clusters") == []
    [aside] = old_file.parent.glob("routes.json.corrupt-*")
    assert aside.read_bytes() == damage


async def test_a_damaged_database_is_said_and_left_as_it_is(start_router: StartRouter, home: Path) -> None:
    path = home / "router" / "router.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigurationError, match=r"router\.sqlite: file is not a database; put a copy"):
        async with start_router():
            pass
    assert path.read_bytes() == b"no database" * 1000


async def test_nothing_is_made_until_something_is_stored(start_router: StartRouter, home: Path) -> None:
    async with start_router() as router:
        assert await router.read("revisions") == []
        assert await router.read("routes/none/history") == []
        assert not (home / "router" / "router.sqlite").exists()
        assert (await router.put("clusters/legacy", LEGACY)).headers["x-toska-revision"] == "1"
        assert (home / "router" / "router.sqlite").stat().st_mode & 0o777 == 0o600
