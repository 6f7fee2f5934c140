"""The pure balancers: fairness, weights and what they do when endpoints drop out."""

import random
from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from toska_common.balancing import MAX_SCHEDULE, LeastRequest, RoundRobin, smooth_schedule


@dataclass(eq=False)
class Endpoint:
    name: str
    weight: int = 1
    in_flight: int = 0


def endpoints(**weights: int) -> list[Endpoint]:
    return [Endpoint(name, weight) for name, weight in weights.items()]


def test_round_robin_takes_each_endpoint_in_turn() -> None:
    balancer = RoundRobin(endpoints(a=1, b=1, c=1), chance=random.Random(1))
    counts = Counter(endpoint.name for endpoint in (balancer.pick() for _ in range(30)) if endpoint)
    assert counts == {"a": 10, "b": 10, "c": 10}


def test_round_robin_spreads_a_heavy_endpoint_evenly() -> None:
    assert "".join(endpoint.name for endpoint in smooth_schedule(endpoints(a=5, b=1, c=1))) == "aabacaa"


def test_round_robin_callers_with_the_same_list_start_at_different_endpoints() -> None:
    many = endpoints(a=1, b=1, c=1, d=1)
    starts = {RoundRobin(many, chance=random.Random(seed)).pick() for seed in range(40)}
    assert len(starts) == 4


def test_round_robin_skips_what_is_not_usable() -> None:
    balancer = RoundRobin(endpoints(a=1, b=1))
    assert {balancer.pick(lambda endpoint: endpoint.name == "b").name for _ in range(4)} == {"b"}  # pyright: ignore[reportOptionalMemberAccess] - b is usable
    assert balancer.pick(lambda _: False) is None


def test_balancers_over_nothing_pick_nothing() -> None:
    assert RoundRobin(list[Endpoint]()).pick() is None
    assert LeastRequest(list[Endpoint]()).pick() is None


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=20))
def test_a_schedule_is_bounded_and_forgets_nobody(weights: list[int]) -> None:
    many = [Endpoint(str(number), weight) for number, weight in enumerate(weights)]
    schedule = smooth_schedule(many)
    assert len(schedule) <= MAX_SCHEDULE + len(many)
    assert {endpoint.name for endpoint in schedule} == {endpoint.name for endpoint in many}


def test_least_request_takes_the_less_loaded_of_two() -> None:
    busy, idle = Endpoint("busy", in_flight=3), Endpoint("idle", in_flight=1)
    assert {LeastRequest([busy, idle], chance=random.Random(seed)).pick() for seed in range(20)} == {idle}


def test_least_request_measures_load_by_weight() -> None:
    big, small = Endpoint("big", weight=10, in_flight=5), Endpoint("small", weight=1, in_flight=1)
    assert {LeastRequest([big, small], chance=random.Random(seed)).pick() for seed in range(20)} == {big}


def test_least_request_without_load_shares_by_weight() -> None:
    balancer = LeastRequest(endpoints(a=3, b=1), chance=random.Random(7))
    counts = Counter(endpoint.name for endpoint in (balancer.pick() for _ in range(4000)) if endpoint)
    assert 2800 < counts["a"] < 3200


def test_least_request_keeps_load_even_when_answers_are_slow() -> None:
    many = endpoints(**{f"e{number}": 1 for number in range(10)})
    balancer = LeastRequest(many, chance=random.Random(3))
    for _ in range(1000):  # none of them is answered
        picked = balancer.pick()
        assert picked is not None
        picked.in_flight += 1
    assert max(endpoint.in_flight for endpoint in many) - min(endpoint.in_flight for endpoint in many) <= 5


def test_least_request_never_takes_the_most_loaded_of_all() -> None:
    many = [*endpoints(a=1, b=1, c=1), Endpoint("hot", in_flight=100)]
    balancer = LeastRequest(many, chance=random.Random(5))
    assert "hot" not in {endpoint.name for endpoint in (balancer.pick() for _ in range(500)) if endpoint}


def test_least_request_skips_what_is_not_usable() -> None:
    balancer = LeastRequest(endpoints(a=1, b=5, c=1), chance=random.Random(5))
    picked = {endpoint.name for endpoint in (balancer.pick(lambda e: e.name != "b") for _ in range(100)) if endpoint}
    assert picked == {"a", "c"}
    assert balancer.pick(lambda _: False) is None
