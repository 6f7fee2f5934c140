"""Which endpoints take traffic: health, panic, zones and slow start."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_common.balancing import Rotation, RotationPolicy, rotate


@dataclass(eq=False)
class Member:
    key: str
    weight: int = 1
    healthy: bool = True
    zone: str = ""
    joined_at: float = -1e9


def shares(rotation: Rotation[Member]) -> dict[str, float]:
    total = sum(rotation.weights)
    return {m.key: round(w / total, 3) for m, w in zip(rotation.endpoints, rotation.weights, strict=True)}


def test_unhealthy_endpoints_are_left_out() -> None:
    rotation = rotate([Member("a"), Member("b", healthy=False), Member("c", weight=3)], RotationPolicy(), 0.0)
    assert shares(rotation) == {"a": 0.25, "c": 0.75}
    assert not rotation.panic


def test_with_nobody_healthy_all_are_tried() -> None:
    rotation = rotate([Member("a", healthy=False), Member("b", healthy=False)], RotationPolicy(), 0.0)
    assert shares(rotation) == {"a": 0.5, "b": 0.5}
    assert rotation.panic


@pytest.mark.parametrize(("healthy", "panic"), [(5, False), (4, True), (10, False), (0, True)])
def test_below_the_panic_ratio_health_is_ignored(healthy: int, panic: bool) -> None:
    members = [Member(str(number), healthy=number < healthy) for number in range(10)]
    rotation = rotate(members, RotationPolicy(panic_ratio=0.5), 0.0)
    assert rotation.panic is panic
    assert len(rotation.endpoints) == (10 if panic else healthy)


def test_nobody_at_all_is_no_panic() -> None:
    assert rotate(list[Member](), RotationPolicy(panic_ratio=0.5, zone="a", slow_start_s=5.0), 0.0) == Rotation([], [])


def test_a_newcomer_gets_its_share_bit_by_bit() -> None:
    members = [Member("old"), Member("new", joined_at=100.0)]
    policy = RotationPolicy(slow_start_s=20.0)
    weights = [rotate(members, policy, 100.0 + second).weights[1] for second in range(22)]
    assert weights[0] == pytest.approx(0.05)
    assert weights[10] == pytest.approx(0.5)
    assert weights[20] == weights[21] == 1.0
    assert weights == sorted(weights)


def test_slow_start_says_when_it_goes_on_and_when_it_is_over() -> None:
    members = [Member("old"), Member("new", joined_at=100.0)]
    policy = RotationPolicy(slow_start_s=20.0)
    now, steps = 100.0, 0
    while (due := rotate(members, policy, now).changes_at) is not None:
        assert due > now
        now, steps = due, steps + 1
    assert now == pytest.approx(120.0)
    assert steps == 20


def test_the_own_zone_takes_everything_while_it_can() -> None:
    members = [Member("n1", zone="eu-1"), Member("n2", zone="eu-1"), Member("f1", zone="eu-2"), Member("f2")]
    assert shares(rotate(members, RotationPolicy(zone="eu-1"), 0.0)) == {"n1": 0.5, "n2": 0.5}


def test_a_zone_with_fewer_endpoints_than_it_needs_hands_over_the_rest() -> None:
    members = [Member("n1", zone="eu-1"), Member("f1", zone="eu-2"), Member("f2", zone="eu-2")]
    taken = shares(rotate(members, RotationPolicy(zone="eu-1", zone_least=4), 0.0))
    assert {key: round(share, 9) for key, share in taken.items()} == {"n1": 0.25, "f1": 0.375, "f2": 0.375}


def test_a_zone_that_loses_endpoints_hands_over_what_it_cannot_carry() -> None:
    members = [Member(f"n{number}", zone="eu-1", healthy=number < 3) for number in range(10)] + [
        Member("f1", zone="eu-2"),
        Member("f2", zone="eu-2", weight=3),
    ]
    found = shares(rotate(members, RotationPolicy(zone="eu-1", zone_capacity=0.6), 0.0))
    assert sum(share for key, share in found.items() if key.startswith("n")) == pytest.approx(0.5, abs=0.01)
    assert found["f2"] == pytest.approx(3 * found["f1"], rel=0.01)


@pytest.mark.parametrize("own", [[], [Member("n", zone="eu-1", healthy=False)]])
def test_without_a_usable_endpoint_in_the_own_zone_the_others_take_all(own: list[Member]) -> None:
    members = [*own, Member("f1", zone="eu-2"), Member("f2", zone="eu-3")]
    assert shares(rotate(members, RotationPolicy(zone="eu-1"), 0.0)) == {"f1": 0.5, "f2": 0.5}


def test_in_panic_zones_do_not_count() -> None:
    members = [Member("n", zone="eu-1"), *(Member(f"f{number}", zone="eu-2", healthy=False) for number in range(9))]
    rotation = rotate(members, RotationPolicy(panic_ratio=0.5, zone="eu-1"), 0.0)
    assert rotation.panic
    assert len(rotation.endpoints) == 10


@given(
    st.lists(
        st.builds(
            Member,
            key=st.just("x"),
            weight=st.integers(1, 100),
            healthy=st.booleans(),
            zone=st.sampled_from(["", "a", "b"]),
            joined_at=st.floats(0, 50),
        ),
        max_size=12,
    ),
    st.floats(0, 1),
    st.sampled_from(["", "a", "c"]),
    st.one_of(st.just(0.0), st.floats(0.05, 30)),
)
def test_whoever_is_there_somebody_takes_the_traffic(
    members: list[Member], panic: float, zone: str, slow_start_s: float
) -> None:
    rotation = rotate(members, RotationPolicy(panic, zone, slow_start_s=slow_start_s), 50.0)
    assert bool(rotation.endpoints) is bool(members)
    assert len(rotation.endpoints) == len(rotation.weights)
    assert all(weight > 0 for weight in rotation.weights)
