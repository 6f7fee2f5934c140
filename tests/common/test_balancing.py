"""The pure balancers: fairness, weights, what moves when endpoints come and go, and what they do when some drop out."""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.balancing import (
    Balancer,
    LatencyAverage,
    LeastRequest,
    Maglev,
    PeakEwma,
    Random,
    RingHash,
    RoundRobin,
    interleave,
)
from toska_common.balancing.base import hash_of
from toska_common.balancing.maglev import fill
from toska_common.balancing.turns import MAX_TURNS


@dataclass(eq=False)
class Endpoint:
    key: str
    weight: int = 1
    in_flight: int = 0
    latency: LatencyAverage = field(default_factory=LatencyAverage)


ALL: list[Callable[..., Balancer[Endpoint]]] = [RoundRobin, Random, LeastRequest, PeakEwma, RingHash, Maglev]
BY_KEY: list[Callable[..., Balancer[Endpoint]]] = [RingHash, Maglev]
WITHOUT_KEY = [RoundRobin, Random, LeastRequest, PeakEwma]
KEYS = [hash_of(b"user-%d" % number) for number in range(20_000)]


def endpoints(**weights: int) -> list[Endpoint]:
    return [Endpoint(key, weight) for key, weight in weights.items()]


def numbered(count: int) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{number}:80") for number in range(count)]


def picked(balancer: Balancer[Endpoint], times: int) -> Counter[str]:
    keys = random.Random(11)
    found = (balancer.pick(key=keys.getrandbits(64)) for _ in range(times))
    return Counter(endpoint.key for endpoint in found if endpoint)


# All of them.


@pytest.mark.parametrize("kind", ALL)
def test_over_nothing_nothing_is_picked(kind: Callable[..., Balancer[Endpoint]]) -> None:
    assert kind([]).pick() is None
    assert kind([]).pick(lambda _: True) is None


@pytest.mark.parametrize("kind", ALL)
def test_one_endpoint_takes_everything(kind: Callable[..., Balancer[Endpoint]]) -> None:
    assert picked(kind(endpoints(a=7)), 10) == {"a": 10}


@pytest.mark.parametrize("kind", ALL)
def test_what_is_not_usable_is_passed_over(kind: Callable[..., Balancer[Endpoint]]) -> None:
    balancer = kind(endpoints(a=1, b=5, c=1), chance=random.Random(5))
    found = {endpoint.key for key in KEYS[:200] if (endpoint := balancer.pick(lambda e: e.key != "b", key))}
    assert found == {"a", "c"}
    assert balancer.pick(lambda _: False) is None


@pytest.mark.parametrize("kind", ALL)
def test_the_last_usable_one_of_many_is_found(kind: Callable[..., Balancer[Endpoint]]) -> None:
    balancer = kind(numbered(500), chance=random.Random(2))
    for key in KEYS[:20]:
        last = balancer.pick(lambda endpoint: endpoint.key == "10.0.0.321:80", key)
        assert last is not None
        assert last.key == "10.0.0.321:80"


@pytest.mark.parametrize("kind", ALL)
def test_shares_follow_the_weights(kind: Callable[..., Balancer[Endpoint]]) -> None:
    counts = picked(kind(endpoints(a=6, b=3, c=1), chance=random.Random(7)), 20_000)
    assert counts["a"] / 20_000 == pytest.approx(0.6, abs=0.07)
    assert counts["c"] / 20_000 == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("kind", ALL)
def test_weights_may_be_others_than_the_endpoints_own(kind: Callable[..., Balancer[Endpoint]]) -> None:
    counts = picked(kind(endpoints(a=1, b=1), [0.25, 0.75], chance=random.Random(7)), 20_000)
    assert counts["b"] / 20_000 == pytest.approx(0.75, abs=0.07)


@pytest.mark.parametrize("kind", WITHOUT_KEY)
def test_equal_endpoints_get_equal_shares(kind: Callable[..., Balancer[Endpoint]]) -> None:
    counts = picked(kind(numbered(10), chance=random.Random(3)), 20_000)
    # Five standard deviations of a binomial share.
    assert all(abs(count - 2000) < 212 for count in counts.values())


# In turn.


def test_round_robin_takes_each_endpoint_in_turn() -> None:
    assert picked(RoundRobin(endpoints(a=1, b=1, c=1), chance=random.Random(1)), 30) == {"a": 10, "b": 10, "c": 10}


def test_round_robin_spreads_a_heavy_endpoint_evenly() -> None:
    assert "".join("abc"[index] for index in interleave([5, 1, 1])) == "abaaaca"
    assert "".join("ab"[index] for index in interleave([2, 2])) == "ab"


def test_round_robin_callers_with_the_same_list_start_at_different_endpoints() -> None:
    many = endpoints(a=1, b=1, c=1, d=1)
    starts = {RoundRobin(many, chance=random.Random(seed)).pick() for seed in range(40)}
    assert len(starts) == 4


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=20))
def test_a_round_is_bounded_and_forgets_nobody(weights: list[int]) -> None:
    turns = interleave(weights)
    assert len(turns) <= MAX_TURNS + len(weights)
    assert set(turns) == set(range(len(weights)))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_in_a_round_small_weights_are_exact(weights: list[int]) -> None:
    counts = Counter(interleave(weights))
    assert all(counts[index] * weights[0] == counts[0] * weight for index, weight in enumerate(weights))


@given(st.lists(st.integers(1, 20), min_size=2, max_size=8))
def test_in_a_round_nobody_runs_ahead_of_his_share(weights: list[int]) -> None:
    turns = interleave(weights)
    had = [0] * len(weights)
    for position, index in enumerate(turns, start=1):
        had[index] += 1
        assert abs(had[index] - position * turns.count(index) / len(turns)) <= 2


# By load.


def test_least_request_takes_the_less_loaded_of_two() -> None:
    busy, idle = Endpoint("busy", in_flight=3), Endpoint("idle", in_flight=1)
    assert {LeastRequest([busy, idle], chance=random.Random(seed)).pick() for seed in range(20)} == {idle}


def test_least_request_measures_load_by_weight() -> None:
    big, small = Endpoint("big", weight=10, in_flight=5), Endpoint("small", weight=1, in_flight=2)
    assert Counter(LeastRequest([big, small], chance=random.Random(s)).pick() for s in range(200))[small] < 40


def test_least_request_keeps_load_even_when_answers_are_slow() -> None:
    many = numbered(10)
    balancer = LeastRequest(many, chance=random.Random(3))
    for _ in range(1000):  # none of them is answered
        endpoint = balancer.pick()
        assert endpoint is not None
        endpoint.in_flight += 1
    assert max(endpoint.in_flight for endpoint in many) - min(endpoint.in_flight for endpoint in many) <= 5


def test_least_request_never_takes_the_most_loaded_of_all() -> None:
    many = [*endpoints(a=1, b=1, c=1), Endpoint("hot", in_flight=100)]
    assert "hot" not in picked(LeastRequest(many, chance=random.Random(5)), 500)


# By latency.


def test_an_average_believes_a_slow_answer_at_once_and_a_quick_one_slowly() -> None:
    average = LatencyAverage()
    average.observe(0.01, now=0.0)
    average.observe(1.0, now=0.1)
    assert average.value == 1.0
    average.observe(0.01, now=0.2)
    assert 0.98 < average.value < 1.0
    for tenth in range(3, 603):
        average.observe(0.01, now=tenth / 10)
    assert average.value == pytest.approx(0.01, rel=0.5)


def test_peak_ewma_leaves_a_stalling_endpoint_alone_and_comes_back_to_it() -> None:
    quick, slow = endpoints(quick=1, slow=1)
    balancer = PeakEwma([quick, slow], chance=random.Random(1))
    now = 0.0
    for endpoint in (quick, slow):
        endpoint.latency.observe(0.01, now)
    slow.latency.observe(2.0, now)
    while_slow = Counter[str]()
    for step in range(1000):
        now = step / 100
        endpoint = balancer.pick(now=now)
        assert endpoint is not None
        while_slow[endpoint.key] += 1
        quick.latency.observe(0.01, now)
    assert while_slow["slow"] == 0
    for _ in range(1200):  # half forgotten, it is tried again
        now += 0.1
        quick.latency.observe(0.01, now)
    later = Counter(endpoint.key for _ in range(200) if (endpoint := balancer.pick(now=now)))
    assert later["slow"] > 50


def test_peak_ewma_prefers_the_fast_by_how_much_they_are_faster() -> None:
    """An hour of calls, each as long as its endpoint takes: ten times as fast gets most of them, and not all."""
    fast, slow = endpoints(fast=1, slow=1)
    takes = {"fast": 0.02, "slow": 0.2}
    balancer, chance = PeakEwma([fast, slow], chance=random.Random(1)), random.Random(2)
    under_way: list[tuple[float, int, Endpoint, float]] = []
    counts, now = Counter[str](), 0.0
    for number in range(36_000):  # ten a second
        now += chance.expovariate(10)
        while under_way and under_way[0][0] <= now:
            at, _, endpoint, took = heapq.heappop(under_way)
            endpoint.in_flight -= 1
            endpoint.latency.observe(took, at)
        endpoint = balancer.pick(now=now)
        assert endpoint is not None
        endpoint.in_flight += 1
        took = takes[endpoint.key] * chance.uniform(0.8, 1.2)
        heapq.heappush(under_way, (now + took, number, endpoint, took))
        counts[endpoint.key] += 1
    assert now > 3400
    assert 0.75 < counts["fast"] / 36_000 < 0.999
    assert counts["slow"] > 30  # it is looked at again and again


def test_two_choices_keep_queues_short_where_chance_does_not() -> None:
    """Balls into bins: of n in n bins the fullest has about log log n, and by chance log n / log log n."""
    fullest: dict[str, int] = {}
    kinds: list[type[Balancer[Endpoint]]] = [LeastRequest[Endpoint], Random[Endpoint]]
    for kind in kinds:
        many = numbered(10_000)
        balancer = kind(many, chance=random.Random(8))
        for _ in range(10_000):
            endpoint = balancer.pick()
            assert endpoint is not None
            endpoint.in_flight += 1
        fullest[type(balancer).__name__] = max(endpoint.in_flight for endpoint in many)
    assert fullest["LeastRequest"] <= 4
    assert fullest["Random"] >= 6


def test_peak_ewma_sends_a_newcomer_one_request_to_prove_itself_with() -> None:
    known, newcomer = endpoints(known=1, newcomer=1)
    known.latency.observe(0.01, now=0.0)
    balancer = PeakEwma([known, newcomer], chance=random.Random(1))
    for _ in range(50):
        endpoint = balancer.pick(now=0.0)
        assert endpoint is not None
        endpoint.in_flight += 1
    assert newcomer.in_flight == 1


# By key.


@pytest.mark.parametrize("kind", BY_KEY)
def test_a_key_stays_where_it_is(kind: Callable[..., Balancer[Endpoint]]) -> None:
    one, other = kind(numbered(20), chance=random.Random(1)), kind(numbered(20), chance=random.Random(2))
    assert all(_owner(one, key) == _owner(other, key) for key in KEYS[:2000])


def test_on_the_ring_only_the_leavers_keys_move() -> None:
    before, after = RingHash(numbered(20)), RingHash(numbered(20)[:-1])
    left = "10.0.0.19:80"
    for key in KEYS:
        assert _owner(before, key) in (left, _owner(after, key))


@pytest.mark.parametrize("count", [10, 100])
def test_of_maglev_at_most_two_nths_of_the_keys_move_when_one_leaves(count: int) -> None:
    before, after = Maglev(numbered(count)), Maglev(numbered(count)[:-1])
    moved = sum(_owner(before, key) != _owner(after, key) for key in KEYS)
    assert 0 < moved <= len(KEYS) * 2 / count


def test_a_maglev_table_is_of_the_size_that_gateways_agree_on() -> None:
    assert len(fill([str(number) for number in range(100)], [1.0] * 100)) == 65_537
    assert len(fill([str(number) for number in range(656)], [1.0] * 656)) == 655_373


@pytest.mark.parametrize("weights", [[1.0] * 50, [float(1 + number % 7) for number in range(50)]])
@pytest.mark.parametrize("kind", [Maglev[Endpoint], RingHash[Endpoint]])
def test_what_is_made_in_steps_is_the_same_as_what_is_made_at_once(
    kind: type[Maglev[Endpoint]] | type[RingHash[Endpoint]], weights: list[float]
) -> None:
    many = numbered(50)
    steps = kind.in_steps(many, weights)
    count = 0
    try:
        while True:
            next(steps)
            count += 1
    except StopIteration as done:
        made: Balancer[Endpoint] = done.value
    at_once = kind(many, weights)
    assert count > 10
    assert all(_owner(made, key) == _owner(at_once, key) for key in KEYS)


@pytest.mark.parametrize(("kind", "tolerance"), [(RingHash, 0.35), (Maglev, 0.05)])
def test_keys_spread_evenly(kind: Callable[..., Balancer[Endpoint]], tolerance: float) -> None:
    balancer = kind(numbered(10))
    keys = random.Random(4)
    counts = Counter(_owner(balancer, keys.getrandbits(64)) for _ in range(200_000))
    assert all(count == pytest.approx(20_000, rel=tolerance) for count in counts.values())


@pytest.mark.parametrize("kind", BY_KEY)
def test_the_keys_of_one_that_is_away_spread_over_the_others(kind: Callable[..., Balancer[Endpoint]]) -> None:
    balancer = kind(numbered(10))
    its = [key for key in KEYS if _owner(balancer, key) == "10.0.0.3:80"]
    heirs = Counter(e.key for key in its if (e := balancer.pick(lambda e: e.key != "10.0.0.3:80", key)))
    assert len(heirs) == 9
    assert max(heirs.values()) < len(its) * 0.4


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 60))
def test_on_the_ring_weights_change_nobody_elses_keys_but_the_leavers(count: int, weight: int) -> None:
    many = [Endpoint(f"e{number}", weight) for number in range(count)]
    before, after = RingHash(many), RingHash(many[1:])
    assert all(_owner(before, key) in ("e0", _owner(after, key)) for key in KEYS[:300])


def _owner(balancer: Balancer[Endpoint], key: int) -> str:
    endpoint = balancer.pick(key=key)
    assert endpoint is not None
    return endpoint.key


def test_the_hash_is_the_same_in_every_process_and_release() -> None:
    """Pinned: gateways of two releases side by side must agree on whose key is whose."""
    assert hash_of(b"user-1") == 9863422088627006618
    assert [_owner(RingHash(numbered(5)), key)[7] for key in KEYS[:8]] == list("13011100")
    assert [_owner(Maglev(numbered(5)), key)[7] for key in KEYS[:8]] == list("22203141")
