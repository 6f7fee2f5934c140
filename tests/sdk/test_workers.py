"""The processes of one instance: who keeps the lease, who is the last, and how their metrics add up."""

import json
from pathlib import Path

import anyio
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from toska_common.mesh.worker_metrics import Family, WorkerMetrics, add_up, encode_families
from toska_common.mesh.workers import WorkerGroup, runtime_folder


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


async def test_one_worker_leads_and_another_takes_over() -> None:
    first, second = await WorkerGroup.join("shop-1"), await WorkerGroup.join("shop-1")
    assert first.lead()
    assert not second.lead()
    assert first.lead()
    first.close()  # as the kernel does when the process is killed
    assert second.lead()


async def test_instances_have_groups_of_their_own() -> None:
    one, other = await WorkerGroup.join("shop-1"), await WorkerGroup.join("shop-2")
    assert one.lead()
    assert other.lead()


async def test_the_last_to_leave_knows_that_it_is() -> None:
    first, second = await WorkerGroup.join("shop-1"), await WorkerGroup.join("shop-1")
    async with first.leaving() as last:
        assert not last
    async with second.leaving() as last:
        assert last


async def test_killed_worker_does_not_count_among_those_left() -> None:
    first, second = await WorkerGroup.join("shop-1"), await WorkerGroup.join("shop-1")
    first.close()
    async with second.leaving() as last:
        assert last


async def test_nobody_joins_while_the_last_one_leaves() -> None:
    first = await WorkerGroup.join("shop-1")
    (first.folder / "worker-1.json").write_text("[]")
    joined: list[WorkerGroup] = []

    async def join() -> None:
        joined.append(await WorkerGroup.join("shop-1"))

    async with anyio.create_task_group() as group, first.leaving() as last:
        assert last
        group.start_soon(join)
        await anyio.wait_all_tasks_blocked()
        assert joined == []
    assert len(joined) == 1
    assert not (joined[0].folder / "worker-1.json").exists()


async def test_first_of_a_generation_finds_nothing_of_the_one_before() -> None:
    group = await WorkerGroup.join("shop-1")
    (group.folder / "worker-1.json").write_text("[]")
    await WorkerGroup.join("shop-1")
    assert (group.folder / "worker-1.json").exists()
    group = await WorkerGroup.join("shop-2")
    (group.folder / "worker-1.json").write_text("[]")
    group.close()
    await WorkerGroup.join("shop-2")
    assert not (group.folder / "worker-1.json").exists()


def test_folder_that_others_could_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toska").mkdir(mode=0o777)
    (tmp_path / "toska").chmod(0o777)
    with pytest.raises(PermissionError, match="0700"):
        runtime_folder()


def worker(requests: int, *, memory: float = 0, started: float = 0) -> list[Family]:
    registry = CollectorRegistry()
    Counter("requests", "Requests", ["route"], registry=registry).labels("/a").inc(requests)
    Histogram("seconds", "Seconds", buckets=(1,), registry=registry).observe(requests)
    Gauge("memory_bytes", "Memory", registry=registry).set(memory)
    Gauge("start_time_seconds", "Start", registry=registry).set(started)
    Info("build", "Build", registry=registry).info({"version": "1"})
    return json.loads(json.dumps(encode_families([registry])))


def test_metrics_add_up_as_their_kinds_want() -> None:
    merged = add_up([(worker(3, memory=10, started=5), True), (worker(4, memory=20, started=9), True)])
    found = {sample.name: sample.value for metric in merged for sample in metric.samples}
    assert found == {
        "requests_total": 7,
        "seconds_bucket": 2,
        "seconds_count": 2,
        "seconds_sum": 7,
        "memory_bytes": 30,
        "start_time_seconds": 9,
        "build_info": 1,
    }


def test_the_dead_count_and_weigh_nothing() -> None:
    merged = add_up([(worker(3, memory=10), True), (worker(4, memory=20), False)])
    found = {sample.name: sample.value for metric in merged for sample in metric.samples}
    assert (found["requests_total"], found["memory_bytes"]) == (7, 10)


async def test_worker_that_never_answered_and_is_gone_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "worker-1.sock").touch()
    (tmp_path / "worker-2.json").write_text("[{")
    metrics = WorkerMetrics(tmp_path, lambda: worker(1))
    gathered = await metrics.gather()
    assert [(len(families) > 0, alive) for families, alive in gathered] == [
        (True, True),
        (False, False),
        (False, False),
    ]
    assert not (tmp_path / "worker-1.sock").exists()
