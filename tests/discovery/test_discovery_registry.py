"""The registry's state machine: events and the time go in, changes come out."""

import pytest
from toska_common.contracts.discovery import Health
from toska_discovery.changes import CHECKS, SERVICES, Changes, Happening
from toska_discovery.errors import UnknownCheck, UnknownInstance
from toska_discovery.instance import ServiceDefinition
from toska_discovery.registry import Registry
from toska_tests.registrations import NOON, check, probed, service

SWEEP_S = 0.25
ORDERS = "service/orders"


@pytest.fixture
def registry() -> Registry:
    return Registry(sweep_interval_s=SWEEP_S, now=0.0)


def sweep_until(registry: Registry, start: float, end: float) -> list[Changes]:
    """Sweep in time from `start` to `end`, and return what changed."""
    found: list[Changes] = []
    for step in range(1, round((end - start) / SWEEP_S) + 1):
        changes = registry.sweep(start + step * SWEEP_S)
        if changes:
            found.append(changes)
    return found


def happened(changes: Changes) -> list[Happening]:
    return [happening for happening, _ in changes.happenings]


def test_a_registration_is_listed_and_wakes_watchers_of_its_service_and_of_the_list(registry: Registry) -> None:
    changes = registry.register(service(), [check()], 0.0, NOON)
    assert list(registry.instances) == ["orders-1"]
    assert changes.topics == {ORDERS, SERVICES, CHECKS}
    assert changes.index == registry.index == registry.service_index("orders") == registry.services_index
    assert happened(changes) == [Happening.REGISTERED]


def test_the_same_registration_again_changes_nothing_and_renews_the_lease(registry: Registry) -> None:
    registry.register(service(tags=("a",), zone="x"), [check()], 0.0, NOON)
    changes = registry.register(service(tags=("a",), zone="x"), [check()], 10.0, NOON)
    assert not changes
    assert changes.topics == set()
    sweep_until(registry, 0.0, 24.0)
    assert registry.instances["orders-1"].health is Health.PASSING


def test_a_renewal_that_brings_no_new_verdict_changes_nothing(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    index = registry.index
    changes = registry.report("service:orders-1", Health.PASSING, "a new note", 5.0)
    assert not changes
    assert changes.topics == set()
    assert registry.index == index


def test_the_output_of_a_renewal_is_kept_for_the_agent_and_not_for_the_catalog(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    registry.report("service:orders-1", Health.PASSING, "a new note", 5.0)
    lease = registry.find_lease("service:orders-1")
    assert lease is not None
    assert lease.output == "a new note"
    assert registry.instances["orders-1"].checks["service:orders-1"].output == ""


def test_a_new_verdict_takes_an_index_and_wakes_watchers_of_the_service_and_of_checks(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    before = registry.index, registry.services_index
    changes = registry.report("service:orders-1", Health.WARNING, "slow", 5.0)
    assert registry.instances["orders-1"].health is Health.WARNING
    assert changes.topics == {ORDERS, CHECKS}
    assert (registry.index, registry.services_index) == (before[0] + 1, before[1])
    assert registry.instances["orders-1"].modify_index == before[0]
    assert registry.instances["orders-1"].checks["service:orders-1"].modify_index == registry.index


def test_an_instance_that_is_not_renewed_turns_critical_after_its_ttl_and_goes_after_its_removal_time(
    registry: Registry,
) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    assert sweep_until(registry, 0.0, 14.75) == []
    (lapsed,) = sweep_until(registry, 14.75, 15.0)
    judged = registry.instances["orders-1"].checks["service:orders-1"]
    assert (judged.status, judged.output) == (Health.CRITICAL, "TTL expired")
    assert Happening.LAPSED in happened(lapsed)
    assert sweep_until(registry, 15.0, 74.75) == []
    (removed,) = sweep_until(registry, 74.75, 75.0)
    assert removed.instances == {"orders-1": None}
    assert happened(removed) == [Happening.REMOVED]
    assert registry.instances == {}


def test_a_lapsed_check_says_what_the_last_report_said(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    registry.report("service:orders-1", Health.PASSING, "queue is short", 0.0)
    sweep_until(registry, 0.0, 15.0)
    judged = registry.instances["orders-1"].checks["service:orders-1"]
    assert judged.output == "TTL expired (last output before timeout follows): queue is short"


def test_an_instance_renewed_for_an_hour_is_never_touched(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    index = registry.index
    for minute in range(60):
        for second in range(0, 60, 5):
            at = minute * 60.0 + second
            registry.report("service:orders-1", Health.PASSING, "", at)
            assert sweep_until(registry, at, at + 5) == []
    assert registry.index == index


def test_a_loop_that_stalls_for_an_hour_lets_no_lease_lapse(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    sweep_until(registry, 0.0, 10.0)
    assert not registry.sweep(3610.0)
    assert sweep_until(registry, 3610.0, 3614.5) == []
    (lapsed,) = sweep_until(registry, 3614.5, 3615.5)
    assert Happening.LAPSED in happened(lapsed)


def test_a_new_registration_on_an_address_and_port_evicts_the_old_holder(registry: Registry) -> None:
    registry.register(service("orders-1", "orders", 9001), [check("a")], 0.0, NOON)
    changes = registry.register(service("payments-1", "payments", 9001), [check("b")], 1.0, NOON)
    assert list(registry.instances) == ["payments-1"]
    assert happened(changes) == [Happening.EVICTED, Happening.REGISTERED]
    assert changes.topics == {ORDERS, "service/payments", SERVICES, CHECKS}
    assert registry.find_check("a") is None


@pytest.mark.parametrize(
    ("first", "second"),
    [("localhost", "127.0.0.1"), ("", "127.0.0.1"), ("Orders.Example", "orders.example"), ("::1", "0:0:0:0:0:0:0:1")],
)
def test_an_address_holds_its_port_however_it_is_spelled(registry: Registry, first: str, second: str) -> None:
    registry.register(ServiceDefinition("a", "orders", first, 9001), [], 0.0, NOON)
    registry.register(ServiceDefinition("b", "orders", second, 9001), [], 0.0, NOON)
    assert list(registry.instances) == ["b"]


def test_instances_without_a_port_hold_nothing(registry: Registry) -> None:
    registry.register(ServiceDefinition("a", "orders", "127.0.0.1"), [], 0.0, NOON)
    registry.register(ServiceDefinition("b", "orders", "127.0.0.1"), [], 0.0, NOON)
    assert list(registry.instances) == ["a", "b"]


def test_an_instance_that_moves_to_another_port_leaves_the_old_one_free(registry: Registry) -> None:
    registry.register(service("a", port=9001), [], 0.0, NOON)
    registry.register(service("a", port=9002), [], 0.0, NOON)
    registry.register(service("b", port=9001), [], 0.0, NOON)
    assert sorted(registry.instances) == ["a", "b"]


def test_a_registration_keeps_the_verdict_of_a_check_that_exists(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    registry.report("service:orders-1", Health.CRITICAL, "broken", 1.0)
    registry.register(service(tags=("new",)), [check(status=Health.PASSING)], 2.0, NOON)
    assert registry.instances["orders-1"].health is Health.CRITICAL


def test_checks_that_a_registration_does_not_name_stay_unless_they_are_to_be_replaced(registry: Registry) -> None:
    registry.register(service(), [check("a"), check("b")], 0.0, NOON)
    registry.register(service(), [check("b")], 1.0, NOON)
    assert sorted(registry.instances["orders-1"].checks) == ["a", "b"]
    registry.register(service(), [check("b")], 2.0, NOON, replace_checks=True)
    assert sorted(registry.instances["orders-1"].checks) == ["b"]
    with pytest.raises(UnknownCheck):
        registry.report("a", Health.PASSING, "", 3.0)


def test_a_check_belongs_to_whoever_registered_it_last(registry: Registry) -> None:
    registry.register(service("a", port=1), [check("shared")], 0.0, NOON)
    registry.register(service("b", port=2), [check("shared")], 0.0, NOON)
    assert registry.instances["a"].checks == {}
    assert list(registry.instances["b"].checks) == ["shared"]
    registry.deregister("a")
    registry.report("shared", Health.WARNING, "", 1.0)
    assert registry.instances["b"].health is Health.WARNING


def test_an_instance_that_changes_its_service_leaves_the_old_one(registry: Registry) -> None:
    registry.register(service("a", "orders"), [], 0.0, NOON)
    index = registry.index
    changes = registry.register(service("a", "payments"), [], 1.0, NOON)
    assert sorted(registry.services) == ["payments"]
    assert {ORDERS, "service/payments"} <= changes.topics
    assert registry.service_index("orders") > index


def test_a_report_on_an_unknown_check_says_so_in_consuls_words(registry: Registry) -> None:
    with pytest.raises(UnknownCheck, match='CheckID "nope" does not have associated TTL'):
        registry.report("nope", Health.PASSING, "", 0.0)


def test_a_deregistered_instance_is_gone_with_its_checks(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    changes = registry.deregister("orders-1")
    assert registry.instances == {}
    assert registry.services == {}
    assert changes.topics == {ORDERS, SERVICES, CHECKS}
    assert not registry.deregister("orders-1")
    with pytest.raises(UnknownCheck):
        registry.report("service:orders-1", Health.PASSING, "", 1.0)


def test_the_index_of_a_service_that_is_not_there_passes_that_of_its_last_state(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    seen = registry.service_index("orders")
    registry.deregister("orders-1")
    extinct = registry.service_index("orders")
    assert extinct > seen
    registry.register(service("b", "payments", 2), [], 1.0, NOON)
    assert registry.service_index("orders") == registry.service_index("never-there") == extinct


def test_changes_of_one_service_leave_the_index_of_another_alone(registry: Registry) -> None:
    registry.register(service("a", "orders", 1), [check("a")], 0.0, NOON)
    index = registry.service_index("orders")
    registry.register(service("b", "payments", 2), [check("b")], 0.0, NOON)
    registry.report("b", Health.CRITICAL, "", 1.0)
    assert registry.service_index("orders") == index


def test_what_was_stored_gets_one_whole_ttl_after_a_restart_and_no_index_goes_back(registry: Registry) -> None:
    registry.register(service(), [check()], 0.0, NOON)
    registry.report("service:orders-1", Health.WARNING, "slow", 14.0)
    restarted = Registry(sweep_interval_s=SWEEP_S, now=1000.0)
    restarted.load(registry.instances.values(), [], 500, 1000.0)
    assert restarted.instances["orders-1"].health is Health.WARNING
    assert min(restarted.service_index("orders"), restarted.services_index, restarted.checks_index) == 500
    assert sweep_until(restarted, 1000.0, 1014.75) == []
    assert sweep_until(restarted, 1014.75, 1015.25) != []


def test_a_ttl_that_changes_is_kept_though_the_catalog_does_not_show_it(registry: Registry) -> None:
    registry.register(service(), [check(ttl_s=15.0)], 0.0, NOON)
    changes = registry.register(service(), [check(ttl_s=30.0)], 0.0, NOON)
    assert not changes
    assert changes.instances == {"orders-1": registry.instances["orders-1"]}
    assert registry.instances["orders-1"].checks["service:orders-1"].definition.ttl_s == 30.0
    assert sweep_until(registry, 0.0, 29.0) == []


def test_a_registration_says_whose_services_it_touches(registry: Registry) -> None:
    registry.register(service("a", "orders", 1), [check("shared")], 0.0, NOON)
    registry.register(service("b", "payments", 2), [], 0.0, NOON)
    assert registry.touched_by(service("c", "new", 3), [check("other")]) == {"new"}
    assert registry.touched_by(service("b", "new", 1), [check("shared")]) == {"new", "orders", "payments"}


def test_instances_are_counted_by_health(registry: Registry) -> None:
    registry.register(service("a", port=1), [check("a")], 0.0, NOON)
    registry.register(service("b", port=2), [check("b")], 0.0, NOON)
    registry.report("b", Health.CRITICAL, "", 1.0)
    assert registry.by_health == {Health.PASSING: 1, Health.WARNING: 0, Health.CRITICAL: 1}
    registry.deregister("b")
    assert registry.by_health == {Health.PASSING: 1, Health.WARNING: 0, Health.CRITICAL: 0}


def test_a_probed_check_takes_verdicts_of_its_prober_alone_and_never_lapses(registry: Registry) -> None:
    changes = registry.register(service(), [probed()], 0.0, NOON)
    assert [*changes.probes] == [*registry.probes] == ["service:orders-1"]
    with pytest.raises(UnknownCheck, match="does not have associated TTL"):
        registry.report("service:orders-1", Health.PASSING, "", 1.0)
    registry.judge("service:orders-1", Health.PASSING, "connected", 1.0)
    assert registry.instances["orders-1"].health is Health.PASSING
    assert sweep_until(registry, 1.0, 1000.0) == []
    registry.register(service("b", port=2), [check("b")], 1000.0, NOON)
    with pytest.raises(UnknownCheck):
        registry.judge("b", Health.PASSING, "", 1000.0)


def test_an_instance_whose_probed_check_was_critical_for_too_long_is_removed(registry: Registry) -> None:
    registry.register(service(), [probed(status=Health.PASSING, removal_after_s=60.0)], 0.0, NOON)
    registry.judge("service:orders-1", Health.CRITICAL, "refused", 0.0)
    assert sweep_until(registry, 0.0, 59.75) == []
    (removed,) = sweep_until(registry, 59.75, 60.0)
    assert happened(removed) == [Happening.REMOVED]
    assert removed.probes == {"service:orders-1": None}


def test_probes_are_told_when_they_come_change_and_go_and_not_otherwise(registry: Registry) -> None:
    first, second = probed(target="127.0.0.1:1"), probed(target="127.0.0.1:2")
    assert registry.register(service(), [first], 0.0, NOON).probes == {"service:orders-1": first}
    assert registry.register(service(tags=("new",)), [first], 0.0, NOON).probes == {}
    changes = registry.register(service(tags=("new",)), [second], 0.0, NOON)
    assert (bool(changes), changes.probes) == (False, {"service:orders-1": second})
    assert registry.register(service(tags=("new",)), [check()], 0.0, NOON).probes == {"service:orders-1": None}
    registry.register(service(tags=("new",)), [first], 0.0, NOON)
    assert registry.deregister("orders-1").probes == {"service:orders-1": None}


def test_a_check_of_the_node_befalls_every_instance_on_it(registry: Registry) -> None:
    registry.register(service("a", "orders", 1), [check("a")], 0.0, NOON)
    registry.register(service("b", "payments", 2), [], 0.0, NOON)
    changes = registry.register_check(check("disk", status=Health.CRITICAL), None, 0.0)
    assert changes.topics == {CHECKS, ORDERS, "service/payments"}
    assert {registry.health_of(item) for item in registry.instances.values()} == {Health.CRITICAL}
    assert registry.service_index("orders") == registry.service_index("payments") == registry.index
    registry.report("disk", Health.PASSING, "", 1.0)
    assert {registry.health_of(item) for item in registry.instances.values()} == {Health.PASSING}
    sweep_until(registry, 1.0, 14.0)
    registry.report("a", Health.PASSING, "", 14.0)
    assert sweep_until(registry, 14.0, 20.0) != []
    assert registry.nodes[""].checks["disk"].output == "TTL expired"
    assert sweep_until(registry, 20.0, 28.0) == []
    assert sorted(registry.instances) == ["a", "b"]


def test_a_check_moves_between_an_instance_and_the_node_with_its_verdict(registry: Registry) -> None:
    registry.register(service(), [check("c", status=Health.WARNING)], 0.0, NOON)
    registry.register_check(check("c"), None, 1.0)
    assert registry.instances["orders-1"].checks == {}
    assert registry.nodes[""].checks["c"].status is Health.WARNING
    registry.register(service(), [check("c")], 2.0, NOON)
    assert registry.nodes[""].checks == {}
    assert registry.instances["orders-1"].health is Health.WARNING


def test_a_check_of_an_instance_that_is_not_there_is_refused(registry: Registry) -> None:
    with pytest.raises(UnknownInstance, match='ServiceID "none" does not exist'):
        registry.register_check(check(), "none", 0.0)
    assert registry.find_check("service:orders-1") is None


def test_a_check_of_the_node_stays_however_long_it_is_critical_and_can_be_renewed_then(registry: Registry) -> None:
    registry.register_check(check("disk", removal_after_s=1.0), None, 0.0)
    sweep_until(registry, 0.0, 120.0)
    assert registry.report("disk", Health.PASSING, "", 120.0)
    found = registry.find_check("disk")
    assert found is not None
    assert found[1].status is Health.PASSING
