"""The state file: what was flushed is there again, what cannot be read is kept aside, what fails is told."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog.testing
from toska_common.contracts.discovery import Health
from toska_common.errors import ConfigurationError
from toska_discovery.changes import Changes
from toska_discovery.check import Check, CheckDefinition, CheckKind, Probe
from toska_discovery.errors import StoreUnavailable
from toska_discovery.foreign import CatalogEntry
from toska_discovery.instance import ServiceDefinition
from toska_discovery.node import OWN_NODE, NodeDefinition
from toska_discovery.registry import Registry
from toska_discovery.store import FILE_NAME, SqliteStore
from toska_tests.registrations import NOON, check, service
from toska_tests.waiting import wait_until


def new_registry(index: int = 1) -> Registry:
    return Registry(sweep_interval_s=0.25, now=0.0, index=index)


async def store_some(folder: Path) -> Registry:
    """Fill a state file: an instance with a verdict, and keys with any bytes."""
    async with SqliteStore.open(folder) as store:
        registry = new_registry(store.stored.index)
        definition = ServiceDefinition(
            "a", "orders", "10.0.0.1", 9001, ("x", "ü"), {"k": "v"}, {"wan": ("10.1.0.1", 80)}, (3, 1), True
        )
        store.save(registry.register(definition, [check("c", notes="n", removal_after_s=None)], 0.0, NOON))
        store.save(registry.register(service("gone", port=2), [], 0.0, NOON))
        store.save(registry.report("c", Health.WARNING, "slow", 1.0))
        store.save(registry.deregister("gone"))
        store.save(registry.coordination.put_key("a/b", bytes(range(256)), 2**64 - 1)[1])
        store.save(registry.coordination.put_key("gone", b"x")[1])
        store.save(registry.coordination.delete_key("gone")[1])
        await store.flush()
        return registry


async def test_what_was_flushed_is_there_again(tmp_path: Path) -> None:
    registry = await store_some(tmp_path)
    async with SqliteStore.open(tmp_path) as store:
        assert store.stored.instances == [*registry.instances.values()]
        (judged,) = store.stored.instances[0].checks.values()
        assert (judged.definition.ttl_s, judged.definition.removal_after_s) == (15.0, None)
        entry = registry.keys.find("a/b")
        assert store.stored.keys == [entry]


async def test_checks_of_every_kind_and_those_of_the_node_are_there_again(tmp_path: Path) -> None:
    registry = new_registry()
    probe = Probe("http://127.0.0.1:1/", 5.0, 2.0, "POST", {"a": ("b", "c")}, "x", args=("y",), node="n")
    of_instance = CheckDefinition("h", "http", None, "n", Health.CRITICAL, 90.0, CheckKind.HTTP, probe, 100)
    async with SqliteStore.open(tmp_path) as store:
        store.save(registry.register(service(), [of_instance], 0.0, NOON))
        store.save(registry.register_check(check("of-node"), None, 0.0))
        store.save(registry.register_check(check("gone"), None, 0.0))
        store.save(registry.deregister_check("gone"))
        store.save(registry.judge("h", Health.PASSING, "200 OK", 1.0))
        await store.flush()
    async with SqliteStore.open(tmp_path) as store:
        stored = store.stored
    restarted = new_registry()
    restarted.load(stored.instances, stored.keys, stored.index, 0.0, nodes=stored.nodes)
    assert restarted.instances == registry.instances
    assert restarted.nodes[OWN_NODE].checks == registry.nodes[OWN_NODE].checks
    assert [*restarted.nodes[OWN_NODE].checks] == ["of-node"]
    kept = restarted.probes["h"]
    assert (kept.probe, kept.removal_after_s, kept.output_max_bytes, kept.ttl_s) == (probe, 90.0, 100, None)
    lease = restarted.find_lease("h")
    assert lease is not None
    assert (lease.deadline, lease.output) == (None, "200 OK")


async def test_other_nodes_are_there_again_with_what_is_on_them_and_those_removed_are_not(tmp_path: Path) -> None:
    registry = new_registry()
    definition = CheckDefinition("up", "up", None, kind=CheckKind.HTTP, document={"HTTP": "http://a"})
    judged = Check(definition, Health.WARNING, "slow", 0, 0)
    meta = {"zone": "a"}
    async with SqliteStore.open(tmp_path) as store:
        for name in ("East", "gone"):
            node = NodeDefinition(name, "10.0.0.1", "an-id" if name == "East" else "", {"wan": "10.1.0.1"}, meta)
            entry = CatalogEntry(node, service("db", "db"), [("db", judged)])
            store.save(registry.register_foreign(entry, NOON))
        store.save(registry.register_foreign(CatalogEntry(NodeDefinition("West", "::1")), NOON))
        store.save(registry.register_foreign(CatalogEntry(node, None, [(None, judged)], keep_node=True), NOON))
        store.save(registry.deregister_foreign("gone"))
        await store.flush()
    async with SqliteStore.open(tmp_path) as store:
        stored = store.stored
    restarted = new_registry()
    restarted.load(stored.instances, stored.keys, stored.index, 0.0, nodes=stored.nodes)
    others = {key: node for key, node in restarted.nodes.items() if key != OWN_NODE}
    assert others == {key: node for key, node in registry.nodes.items() if key != OWN_NODE}
    assert sorted(others) == ["east", "west"]
    assert restarted.instances == registry.instances
    assert [item.service.id for item in restarted.listing.instances_on("east")] == ["db"]
    assert restarted.find_check("up") is None, "nobody here renews or probes it"


async def test_no_index_is_given_out_twice_and_the_node_keeps_its_id(tmp_path: Path) -> None:
    registry = await store_some(tmp_path)
    seen = registry.index
    nodes: set[str] = set()
    for _ in range(3):
        async with SqliteStore.open(tmp_path) as store:
            assert store.stored.index > seen
            seen = store.stored.index
            nodes.add(store.stored.node_id)
    assert len(nodes) == 1


async def test_indexes_are_reserved_ahead_of_those_in_use(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path) as store:
        used = store.stored.index + 150_000
        store.save(Changes(index=used, keys={}))
        await store.flush()
    async with SqliteStore.open(tmp_path) as store:
        assert store.stored.index > used


async def test_only_what_changed_last_is_written(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path) as store:
        registry = new_registry()
        before = store.commits
        for number in range(1000):
            store.save(registry.coordination.put_key("counter", str(number).encode())[1])
        await store.flush()
        assert store.commits - before < 900
    async with SqliteStore.open(tmp_path) as store:
        assert [entry.value for entry in store.stored.keys] == [b"999"]


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    await store_some(tmp_path)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path):
        with pytest.raises(ConfigurationError, match=r"another discovery uses it.*TOSKA_HOME"):
            async with SqliteStore.open(tmp_path):
                pass


async def test_a_folder_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TOSKA_HOME"):
        async with SqliteStore.open(tmp_path / "missing"):
            pass


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "not a database": lambda _: b"this is no database at all" * 100,
    "half of it": lambda content: content[: len(content) // 2],
    "its head": lambda content: content[:100],
    "less than its head": lambda content: content[:30],
    "overwritten": lambda content: content[:4096] + b"\xff" * (len(content) - 4096),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_kept_aside_and_said_to_be(tmp_path: Path, damage: str) -> None:
    await store_some(tmp_path)
    path = tmp_path / FILE_NAME
    damaged = DAMAGES[damage](path.read_bytes())
    path.write_bytes(damaged)
    with structlog.testing.capture_logs() as logs:
        async with SqliteStore.open(tmp_path) as store:
            assert (store.stored.instances, store.stored.keys) == ([], [])
            store.save(new_registry().coordination.put_key("a", b"1")[1])
            await store.flush()
    (said,) = (line for line in logs if line["event"] == "store_unreadable")
    assert "starting with an empty registry" in said["remedy"]
    assert Path(said["kept_aside"]).read_bytes() == damaged
    async with SqliteStore.open(tmp_path) as store:
        assert [entry.key for entry in store.stored.keys] == ["a"]


async def test_a_row_that_is_not_ours_is_damage_as_well(tmp_path: Path) -> None:
    await store_some(tmp_path)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("UPDATE instances SET body = '{}'")
    connection.close()
    async with SqliteStore.open(tmp_path) as store:
        assert store.stored.instances == []
    assert [*tmp_path.glob(f"{FILE_NAME}.corrupt-*")]


async def test_an_empty_file_is_said_to_have_been_empty(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    with structlog.testing.capture_logs() as logs:
        async with SqliteStore.open(tmp_path) as store:
            assert store.stored.instances == []
    assert "store_was_empty" in {line["event"] for line in logs}


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    await store_some(tmp_path)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema'")
    connection.close()
    with pytest.raises(ConfigurationError, match="newer version"):
        async with SqliteStore.open(tmp_path):
            pass
    assert not [*tmp_path.glob("*.corrupt-*")]


async def test_a_write_that_fails_is_told_and_made_up_for_once_it_works_again(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path) as store:
        registry = new_registry()
        # The file cannot grow any more, as on a full disk.
        store._connection.execute("PRAGMA max_page_count = 1")  # pyright: ignore[reportPrivateUsage] - no disk to fill
        store.save(registry.coordination.put_key("big", b"x" * 100_000)[1])
        with pytest.raises(StoreUnavailable, match="cannot be written"):
            await store.flush()
        assert store.failure is not None
        store._connection.execute("PRAGMA max_page_count = 100000")  # pyright: ignore[reportPrivateUsage] - see above
        store.save(registry.coordination.put_key("small", b"y")[1])
        await wait_until(lambda: store.failure is None)
        await store.flush()
    async with SqliteStore.open(tmp_path) as store:
        assert [entry.key for entry in store.stored.keys] == ["big", "small"]
