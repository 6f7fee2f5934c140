"""The last good snapshot on disk: whole or not at all, and what cannot be read is kept aside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs
from toska_common.contracts.routing import Snapshot
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_gateway.store import SnapshotStore
from toska_tests.waiting import wait_until


def snapshot(port: int = 9001) -> Snapshot:
    document = {
        "clusters": {"legacy": {"endpoints": [{"address": "127.0.0.1", "port": port, "weight": 3}]}},
        "routes": [
            {"name": "legacy", "match": {"path_prefix": "/legacy", "headers": {"x-a": "1"}}, "to": "legacy"},
            {"name": "gone", "match": {"path": "/gone"}, "redirect": {"to": "/new"}, "policies": {"timeout": "5s"}},
        ],
    }
    return build_snapshot(build_table(load_document(json.dumps(document), source="test"), ["orders"]))


async def store_once(store: SnapshotStore, *snapshots: Snapshot) -> None:
    """Have them written, as at the end of a gateway's life."""
    async with anyio.create_task_group() as group:
        group.start_soon(store.run)
        for item in snapshots:
            store.keep(item)
        group.cancel_scope.cancel()


async def test_a_snapshot_is_read_as_it_was_kept(home: Path) -> None:
    await store_once(SnapshotStore(home), snapshot())
    assert await SnapshotStore(home).load() == snapshot()
    assert (home / "gateway" / "snapshot.json").stat().st_mode & 0o777 == 0o600


async def test_of_a_burst_only_the_last_one_is_written(home: Path) -> None:
    store = SnapshotStore(home)
    async with anyio.create_task_group() as group:
        group.start_soon(store.run)
        for port in range(9001, 9051):
            store.keep(snapshot(port))
        await wait_until(store.path.exists)
        group.cancel_scope.cancel()
    assert await store.load() == snapshot(9050)
    assert [path.name for path in store.path.parent.iterdir()] == ["snapshot.json"]


async def test_without_a_file_there_is_nothing_and_nothing_is_said(home: Path) -> None:
    with capture_logs() as logs:
        assert await SnapshotStore(home).load() is None
    assert logs == []


def _changed(text: str, **changes: Any) -> str:
    return json.dumps({**json.loads(text), **changes})


def _with_other_endpoints(text: str) -> str:
    body = json.loads(text)
    body["snapshot"]["endpoints"]["legacy"]["endpoints"][0]["port"] = 9002
    return json.dumps(body)


DAMAGES: dict[str, Callable[[str], str]] = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "zeros": lambda text: "\x00" * len(text),
    "cluster": lambda text: text.replace("9001", "9002"),
    "endpoints": _with_other_endpoints,
    "route": lambda text: text.replace("/legacy", "/other"),
    "format": lambda text: _changed(text, format=99),
    "shape": lambda text: _changed(text, snapshot={"routes_version": "x", "table": {"routes": [{}]}}),
    "list": lambda _: "[1]",
    "deep": lambda _: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_kept_aside_with_a_clear_message(home: Path, damage: str) -> None:
    store = SnapshotStore(home)
    await store_once(store, snapshot())
    damaged = DAMAGES[damage](store.path.read_text())
    store.path.write_text(damaged)
    with capture_logs() as logs:
        assert await store.load() is None
    (entry,) = logs
    assert entry["event"] == "stored_snapshot_corrupt"
    assert Path(entry["kept_as"]).read_text() == damaged
    assert not store.path.exists()
    await store_once(store, snapshot())
    assert await store.load() == snapshot()


async def test_a_disk_that_cannot_be_written_is_said_once_and_the_gateway_goes_on(home: Path) -> None:
    (home / "gateway").write_text("in the way")
    store = SnapshotStore(home)
    with capture_logs() as logs:
        for port in (9001, 9002, 9003):
            await store_once(store, snapshot(port))
    assert [entry["event"] for entry in logs] == ["snapshot_not_kept"]
    (home / "gateway").unlink()
    await store_once(store, snapshot(9004))
    assert await store.load() == snapshot(9004)
