"""Leases and the time they live in: hours of it, without waiting for any."""

import pytest
from toska_common.contracts.discovery import Health
from toska_discovery.check import Check, CheckDefinition
from toska_discovery.lease import Due, Lease, Leases, LeaseTime

TTL_S, REMOVAL_S = 15.0, 60.0


def grant(
    leases: Leases,
    name: str = "c",
    *,
    at: float = 0.0,
    critical: bool = False,
    ttl_s: float | None = TTL_S,
    removal_after_s: float | None = REMOVAL_S,
) -> Lease:
    definition = CheckDefinition(name, "lease", ttl_s, removal_after_s=removal_after_s)
    return leases.grant(Check(definition, Health.CRITICAL if critical else Health.PASSING, "", 1, 1), at)


def due(leases: Leases, at: float) -> list[tuple[str, Due]]:
    return [(lease.check_id, what) for lease, what in leases.take_due(at)]


def test_a_lease_lapses_at_its_deadline_and_not_before() -> None:
    leases = Leases()
    grant(leases)
    assert due(leases, 14.999) == []
    assert due(leases, 15.0) == [("c", Due.LAPSED)]


def test_a_lapsed_lease_is_to_be_removed_once_it_was_critical_for_its_removal_time() -> None:
    leases = Leases()
    grant(leases)
    assert due(leases, 15.0) == [("c", Due.LAPSED)]
    assert due(leases, 74.999) == []
    assert due(leases, 75.0) == [("c", Due.REMOVE)]


def test_a_renewal_moves_the_deadline_by_one_ttl_from_its_own_time() -> None:
    leases = Leases()
    lease = grant(leases)
    leases.renew(lease, 10.0, "", critical=False)
    assert due(leases, 24.999) == []
    assert due(leases, 25.0) == [("c", Due.LAPSED)]


def test_a_lapsed_lease_that_is_renewed_lives_again() -> None:
    leases = Leases()
    lease = grant(leases)
    assert due(leases, 15.0) == [("c", Due.LAPSED)]
    leases.renew(lease, 20.0, "", critical=False)
    assert due(leases, 34.9) == []
    assert due(leases, 35.0) == [("c", Due.LAPSED)]
    assert due(leases, 94.9) == []
    assert due(leases, 95.0) == [("c", Due.REMOVE)]


def test_reports_that_it_is_critical_do_not_put_off_its_removal() -> None:
    leases = Leases()
    lease = grant(leases, critical=True)
    found: list[tuple[str, Due]] = []
    for second in range(5, 61, 5):
        leases.renew(lease, float(second), "still broken", critical=True)
        found += due(leases, float(second))
    assert found == [("c", Due.REMOVE)]


def test_a_lease_without_removal_time_lapses_and_stays() -> None:
    leases = Leases()
    grant(leases, removal_after_s=None)
    assert due(leases, 1e9) == [("c", Due.LAPSED)]
    assert due(leases, 2e9) == []


def test_a_lease_without_a_ttl_never_lapses_and_is_to_be_removed_once_it_was_critical_for_too_long() -> None:
    leases = Leases()
    lease = grant(leases, ttl_s=None)
    assert due(leases, 1000.0) == []
    leases.renew(lease, 1000.0, "refused", critical=True)
    assert due(leases, 1059.0) == []
    leases.renew(lease, 1059.5, "accepts", critical=False)
    assert due(leases, 1e6) == []
    leases.renew(lease, 1e6, "refused", critical=True)
    assert due(leases, 1e6 + 60.0) == [("c", Due.REMOVE)]


def test_a_dropped_lease_is_never_due() -> None:
    leases = Leases()
    grant(leases)
    leases.drop("c")
    assert due(leases, 1e9) == []
    assert len(leases) == 0


def test_a_new_grant_replaces_the_old_deadline() -> None:
    leases = Leases()
    grant(leases, ttl_s=5.0)
    grant(leases, ttl_s=100.0, at=1.0)
    assert due(leases, 100.9) == []
    assert due(leases, 101.0) == [("c", Due.LAPSED)]


def test_a_new_grant_of_a_critical_check_keeps_the_time_since_when_it_is() -> None:
    leases = Leases()
    grant(leases)
    assert due(leases, 15.0) == [("c", Due.LAPSED)]
    grant(leases, at=70.0, critical=True)
    assert due(leases, 75.0) == [("c", Due.REMOVE)]


def test_leases_that_are_renewed_for_a_day_never_lapse() -> None:
    leases = Leases()
    granted = [grant(leases, f"c{number}") for number in range(20)]
    for second in range(10, 86_400, 10):
        for lease in granted:
            leases.renew(lease, float(second), "", critical=False)
        assert due(leases, second + 9.0) == []


def test_the_queue_does_not_grow_with_leases_that_come_and_go() -> None:
    leases = Leases()
    for number in range(10_000):
        grant(leases, f"c{number}")
        leases.drop(f"c{number}")
    assert len(leases._queue) < 200  # pyright: ignore[reportPrivateUsage] - memory is what this is about


@pytest.mark.parametrize("stall", [0.3, 20.0, 3600.0])
def test_lease_time_stands_still_while_no_sweep_comes(stall: float) -> None:
    time = LeaseTime(interval=0.25, now=100.0)
    assert time.sweep(100.25) == pytest.approx(100.25)
    assert time.sweep(100.5 + stall) == pytest.approx(100.5)
    assert time.sweep(100.75 + stall) == pytest.approx(100.75)


def test_a_renewal_that_comes_before_the_late_sweep_is_worth_one_ttl_and_no_more() -> None:
    time = LeaseTime(interval=0.25, now=0.0)
    renewed = time.at(30.0)
    swept = time.sweep(30.01)
    assert swept - renewed == pytest.approx(0.0, abs=0.011)


def test_lease_time_never_runs_backwards() -> None:
    time = LeaseTime(interval=0.25, now=0.0)
    moments = [time.at(0.1), time.sweep(0.25), time.at(5.0), time.at(5.1), time.sweep(5.2), time.sweep(5.45)]
    assert moments == sorted(moments)


def test_a_look_at_many_leases_can_be_had_in_slices_that_miss_none() -> None:
    leases = Leases()
    for number in range(100):
        grant(leases, f"c{number:03}", at=number / 1000)
    found: list[str] = []
    slices = 0
    while leases.is_due(16.0):
        found += [lease.check_id for lease, what in leases.take_due(16.0, 7) if what is Due.LAPSED]
        slices += 1
    assert found == [f"c{number:03}" for number in range(100)]
    assert slices == 15


def test_a_lease_that_is_renewed_between_two_slices_does_not_lapse() -> None:
    leases = Leases()
    granted = [grant(leases, f"c{number}") for number in range(3)]
    assert [lease.check_id for lease, _ in leases.take_due(15.0, 1)] == ["c0"]
    leases.renew(granted[2], 15.0, "", critical=False)
    assert due(leases, 15.0) == [("c1", Due.LAPSED)]
