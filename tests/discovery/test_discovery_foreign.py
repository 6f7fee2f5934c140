"""Other nodes than the registry's own: what is written about them, and whom it concerns."""

import pytest
from toska_common.contracts.discovery import Health
from toska_discovery.changes import CHECKS, NODES, SERVICES, Happening
from toska_discovery.check import Check, CheckDefinition, CheckKind
from toska_discovery.errors import UnknownInstance
from toska_discovery.foreign import CatalogEntry
from toska_discovery.instance import ServiceDefinition
from toska_discovery.node import NodeDefinition
from toska_discovery.registry import Registry
from toska_tests.registrations import NOON, check, service

EAST = NodeDefinition("east", "10.0.0.1")
DB = ServiceDefinition("db", "db", "10.0.0.1", 9001)


@pytest.fixture
def registry() -> Registry:
    return Registry(sweep_interval_s=0.25, now=0.0)


def written(own_id: str = "up", status: Health = Health.PASSING, output: str = "") -> Check:
    """A check as it comes from the catalog."""
    return Check(CheckDefinition(own_id, own_id, None, "", status, kind=CheckKind.EXTERNAL), status, output, 0, 0)


def test_an_entry_wakes_those_who_wait_for_nodes_services_and_checks(registry: Registry) -> None:
    changes = registry.register_foreign(CatalogEntry(EAST, DB, [("db", written())]), NOON)
    assert changes.topics == {NODES, SERVICES, CHECKS, "service/db"}
    assert [happening for happening, _ in changes.happenings] == [Happening.REGISTERED]
    assert [instance.node for instance in registry.services["db"].values()] == ["east"]
    assert not registry.register_foreign(CatalogEntry(EAST, DB, [("db", written())]), NOON)


def test_a_service_has_the_index_of_the_last_change_of_a_node_that_it_is_on(registry: Registry) -> None:
    registry.register_foreign(CatalogEntry(EAST, DB), NOON)
    registry.register(service(), [check()], 0.0, NOON)
    seen, other = registry.service_index("db"), registry.service_index("orders")
    changes = registry.register_foreign(CatalogEntry(NodeDefinition("east", "10.0.0.2")), NOON)
    assert registry.service_index("db") == changes.index > seen
    changes = registry.register_foreign(CatalogEntry(EAST, None, [(None, written())], keep_node=True), NOON)
    assert registry.service_index("db") == changes.index
    assert registry.service_index("orders") == other


def test_an_instance_is_as_well_as_its_node(registry: Registry) -> None:
    registry.register_foreign(CatalogEntry(EAST, DB, [("db", written())]), NOON)
    (instance,) = registry.services["db"].values()
    registry.register_foreign(CatalogEntry(EAST, None, [(None, written("disk", Health.CRITICAL))]), NOON)
    assert (instance.health, registry.health_of(instance)) == (Health.PASSING, Health.CRITICAL)
    registry.deregister_foreign("east", check_id="disk")
    assert registry.health_of(instance) is Health.PASSING


def test_nothing_of_an_entry_is_written_if_a_check_is_of_no_instance(registry: Registry) -> None:
    before = registry.index
    with pytest.raises(UnknownInstance, match='Missing service registration on node "east"'):
        registry.register_foreign(CatalogEntry(EAST, DB, [("db", written()), ("none", written("x"))]), NOON)
    assert registry.index == before
    assert list(registry.nodes) == [""]
    assert not registry.instances


def test_the_same_id_on_two_nodes_is_two_instances_and_neither_evicts_the_other(registry: Registry) -> None:
    registry.register(service("db", "db"), [], 0.0, NOON)
    for name in ("east", "west"):
        registry.register_foreign(CatalogEntry(NodeDefinition(name, "10.0.0.1"), service("db", "db")), NOON)
    assert len(registry.services["db"]) == 3
    registry.deregister("db")
    registry.deregister_foreign("EAST", instance_id="db")
    assert [instance.node for instance in registry.services["db"].values()] == ["west"]


def test_a_check_written_for_another_owner_moves_there(registry: Registry) -> None:
    registry.register_foreign(CatalogEntry(EAST, DB, [("db", written())]), NOON)
    registry.register_foreign(CatalogEntry(EAST, None, [(None, written())]), NOON)
    assert [*registry.nodes["east"].checks] == ["up"]
    assert all(not instance.checks for instance in registry.services["db"].values())


def test_checks_elsewhere_neither_lapse_nor_take_reports_nor_remove_anybody(registry: Registry) -> None:
    registry.register_foreign(CatalogEntry(EAST, DB, [("db", written(status=Health.CRITICAL))]), NOON)
    for second in range(1, 1000):
        assert not registry.sweep(float(second))
    assert registry.find_check("up") is None
    assert len(registry.instances) == 1


def test_a_new_output_is_a_change_and_a_new_verdict_is_told(registry: Registry) -> None:
    registry.register_foreign(CatalogEntry(EAST, DB, [("db", written(output="one"))]), NOON)
    changes = registry.register_foreign(CatalogEntry(EAST, None, [("db", written(output="two"))]), NOON)
    assert changes.topics == {"service/db", CHECKS}
    assert changes.happenings == []
    changes = registry.register_foreign(CatalogEntry(EAST, None, [("db", written(status=Health.WARNING))]), NOON)
    assert [happening for happening, _ in changes.happenings] == [Happening.HEALTH]


def test_a_node_goes_with_all_that_is_on_it(registry: Registry) -> None:
    registry.register_foreign(CatalogEntry(EAST, DB, [("db", written()), (None, written("disk"))]), NOON)
    changes = registry.deregister_foreign("East")
    assert not registry.instances
    assert list(registry.nodes) == [""]
    assert changes.topics == {NODES, SERVICES, CHECKS, "service/db"}
    assert set(changes.nodes) == {"east"}
    assert not registry.deregister_foreign("east")
