"""Snapshots: saved whole, restored whole, and refused whole where anything about them is wrong."""

import gzip
import io
import json
import tarfile
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_discovery.snapshot import META, STATE, SUMS, read_snapshot
from toska_tests.discovery_rig import ConsulPort, RunningDiscovery, consul_port, discovery_in
from toska_tests.waiting import wait_until


@pytest.fixture
async def discovery(tmp_path: Path) -> AsyncGenerator[RunningDiscovery]:
    """A registry of the test's own: restoring replaces all that there is."""
    async with discovery_in(tmp_path) as running:
        yield running


@pytest.fixture
async def own(discovery: RunningDiscovery) -> AsyncGenerator[ConsulPort]:
    async with consul_port("embedded", discovery.consul, discovery.credentials.admin) as opened:
        yield opened


@pytest.fixture
async def client(discovery: RunningDiscovery) -> AsyncGenerator[ConsulClient]:
    async with ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as opened:
        yield opened


async def fill(port: ConsulPort, client: ConsulClient) -> str:
    """Some of everything; returns the id of a session that holds the key `lock`."""
    check = TTLCheck(timedelta(minutes=5))
    await client.register_service(ServiceRegistration("kept", port=7001, tags=("x",), checks=(check,)))
    await port.put("catalog/register", {"Node": "far", "Address": "10.0.0.9", "Service": {"Service": "remote"}})
    await client.kv_put("plain", bytes(range(256)), flags=7)
    session = await client.create_session(name="s", ttl=timedelta(seconds=60), checks=["service:kept"])
    assert await client.kv_acquire("lock", b"held", session)
    await port.ask("POST", "query", {"Name": "q", "Service": {"Service": "kept"}})
    return session


READINGS = ["kv/?recurse", "session/list", "query", "health/checks/kept", "catalog/service/remote", "agent/services"]


async def read_all(port: ConsulPort) -> list[object]:
    return [strip(await port.read(path)) for path in READINGS]


def strip(value: object) -> object:
    """Without the mesh's own registration, which comes and goes by itself."""
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if not key.startswith("toska-")}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - JSON
    return value


async def test_a_restored_snapshot_brings_everything_back_and_takes_away_what_came_after(
    own: ConsulPort, client: ConsulClient, tmp_path: Path
) -> None:
    session = await fill(own, client)
    before = await read_all(own)
    answer = await own.get("snapshot")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-gzip")
    assert answer.headers["x-consul-knownleader"] == "true"
    await client.kv_put("plain", b"changed")
    await client.kv_put("later", b"x")
    await client.destroy_session(session)
    await client.deregister_service("kept")
    await client.register_service(ServiceRegistration("new", port=7002))
    index = (await own.get("kv/?recurse")).index
    restored = await own.put("snapshot", answer.content)
    assert (restored.status, restored.content) == (200, b"")
    assert await read_all(own) == before
    for path in ("kv/?recurse", "session/list", "catalog/services", "health/service/new"):
        assert (await own.get(path)).index > index
    await client.renew_session(session)
    await client.pass_check("service:kept")
    assert await client.kv_release("lock", b"given back", session)
    await client.fail_check("service:kept")  # and the session is bound to it again
    assert await own.read(f"session/info/{session}") == []


async def test_what_was_restored_survives_a_restart_and_what_it_replaced_does_not_come_back(tmp_path: Path) -> None:
    async with discovery_in(tmp_path) as first:
        token = first.credentials.admin
        async with consul_port("", first.consul, token) as port, ConsulClient.open(first.consul, token=token) as client:
            await fill(port, client)
            packed = (await port.get("snapshot")).content
            await client.kv_put("later", b"x")
            await client.register_service(ServiceRegistration("new", port=7002))
            assert (await port.put("snapshot", packed)).status == 200
            before = await read_all(port)
    async with discovery_in(tmp_path) as second, consul_port("", second.consul, second.credentials.admin) as port:
        after = await read_all(port)
    assert after == before


async def test_watchers_are_told_of_a_restoration(own: ConsulPort, client: ConsulClient) -> None:
    await fill(own, client)
    packed = (await own.get("snapshot")).content
    await client.kv_put("plain", b"changed")
    woken: list[str] = []
    paths = ["kv/plain", "kv/?recurse", "health/service/kept", "catalog/services", "session/list", "query"]
    async with anyio.create_task_group() as group:

        async def wait(path: str, index: int) -> None:
            separator = "&" if "?" in path else "?"
            await own.get(f"{path}{separator}index={index}&wait=30s")
            woken.append(path)

        for path in paths:
            group.start_soon(wait, path, (await own.get(path)).index)
        await anyio.wait_all_tasks_blocked()
        assert (await own.put("snapshot", packed)).status == 200
        await wait_until(lambda: len(woken) >= len(paths) - 1)
        group.cancel_scope.cancel()
    assert {*paths} - {*woken} <= {"kv/plain"}


def repacked(packed: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # pyright: ignore[reportOptionalMemberAccess] - files all
    change(members)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return out.getvalue()


def flipped(packed: bytes, name: str) -> bytes:
    def change(members: dict[str, bytes]) -> None:
        body = bytearray(members[name])
        body[len(body) // 2] ^= 1
        members[name] = bytes(body)

    return repacked(packed, change)


def without(packed: bytes, name: str) -> bytes:
    def change(members: dict[str, bytes]) -> None:
        del members[name]

    return repacked(packed, change)


HASH = "failed to read snapshot file: failed checking integrity of snapshot: hash check failed for"
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _: b"", "failed to decompress snapshot: EOF"),
    "no archive": (lambda _: b"xx", "failed to decompress snapshot: "),
    "half of it": (lambda packed: packed[: len(packed) // 2], "failed to decompress snapshot: "),
    "no tar": (lambda _: gzip.compress(b"x" * 2000), "failed to read snapshot file: "),
    "state changed": (lambda packed: flipped(packed, STATE), f'{HASH} "{STATE}"'),
    "meta changed": (lambda packed: flipped(packed, META), f'{HASH} "{META}"'),
    "no sums": (lambda packed: without(packed, SUMS), "failed to read snapshot file: "),
    "no state": (lambda packed: without(packed, STATE), f'{HASH} "{STATE}"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_snapshot_is_refused_whole(own: ConsulPort, client: ConsulClient, damage: str) -> None:
    await client.kv_put("a", b"1")
    packed = (await own.get("snapshot")).content
    await client.kv_put("a", b"2")
    index = (await own.get("kv/a")).index
    damaged, text = DAMAGES[damage]
    answer = await own.put("snapshot", damaged(packed))
    assert answer.status == 500
    assert answer.text.startswith(text)
    assert ((await own.get("kv/a?raw")).content, (await own.get("kv/a")).index) == (b"2", index)


async def test_consul_says_the_same_of_what_is_no_snapshot(port: ConsulPort) -> None:
    answer = await port.put("snapshot", b"")
    assert (answer.status, answer.text) == (500, "failed to decompress snapshot: EOF")
    assert (await port.get("snapshot")).headers["content-type"] == "application/x-gzip"


async def test_neither_registry_reads_the_others_snapshots(
    own: ConsulPort, consul_registry: object, tmp_path: Path
) -> None:
    async with consul_port("consul", getattr(consul_registry, "url")) as real:  # noqa: B009 - a fixture's
        theirs = (await real.get("snapshot")).content
        ours = (await own.get("snapshot")).content
        assert (await real.put("snapshot", ours)).status == 500
    answer = await own.put("snapshot", theirs)
    assert answer.status == 500
    assert answer.text.startswith("failed to read snapshot file: ")


async def test_a_snapshot_needs_the_admin_token_even_to_be_read(discovery: RunningDiscovery) -> None:
    for token in ("", discovery.credentials.join):
        async with consul_port("", discovery.consul, token) as port:
            assert (await port.get("snapshot")).status == 403
            assert (await port.put("snapshot", b"x")).status == 403


async def test_an_archive_says_what_it_is(own: ConsulPort) -> None:
    packed = (await own.get("snapshot")).content
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames() == [META, STATE, SUMS]
        meta = json.load(archive.extractfile(META))  # pyright: ignore[reportArgumentType] - it is a file
    assert (meta["Format"], meta["Version"]) == ("toska-discovery", 1)
    assert read_snapshot(packed).index == meta["Index"]
