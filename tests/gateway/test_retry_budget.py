"""What retries may add to a cluster's load, over hours of requests, and how long they wait."""

import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from toska_common.contracts.routing import RetryPolicy
from toska_gateway.worker.retries import RetryBudget, RetryRules, retry_after_s, statuses_of


class Load:
    """Requests at a rate, some of which fail and are tried again as often as the budget lets them."""

    def __init__(self, *, ratio: float = 0.2, floor: int = 10, attempts: int = 5, seed: int = 1) -> None:
        self.ratio, self.floor, self.limit = ratio, floor, attempts
        self.budget = RetryBudget()
        self.chance = random.Random(seed)
        self.attempts = 0
        self.now = 1000.0
        self.seconds = Counter[int]()
        self.requests = Counter[int]()

    def run(self, seconds: float, rate: float, failing: float) -> None:
        """Poisson arrivals for so long."""
        end = self.now + seconds
        while self.now < end:
            self.now += self.chance.expovariate(rate)
            self.budget.tick(self.now, self.attempts)
            self.requests[int(self.now)] += 1
            for attempt in range(1, self.limit + 1):
                self.attempts += 1
                self.seconds[int(self.now)] += 1
                if self.chance.random() >= failing or attempt == self.limit:
                    break
                if not self.budget.spend(self.ratio, self.floor, self.now, self.attempts):
                    break


def test_an_hour_of_dead_upstreams_costs_no_more_than_the_budget_adds() -> None:
    load = Load()
    load.run(3600, rate=100, failing=1.0)
    requests, attempts = sum(load.requests.values()), sum(load.seconds.values())
    assert 1.17 < attempts / requests < 1.2  # nearly all of it is used, and nothing more
    worst = max(load.seconds[second] / count for second, count in load.requests.items() if count > 60)
    assert worst < 1.35  # also in a second whose requests were few after one with many


def test_a_thousand_requests_a_second_never_become_twelve_hundred_attempts() -> None:
    load = Load()
    load.run(20, rate=1000, failing=0.001)  # however well it went before
    calm = load.now
    load.run(20, rate=1000, failing=1.0)
    for second in range(int(calm) + 1, int(load.now)):
        assert load.seconds[second] <= 1.22 * load.requests[second]  # (of some more in the second before)
    failing = range(int(calm), int(load.now) + 1)
    assert sum(load.seconds[second] for second in failing) <= 1.2 * sum(load.requests[second] for second in failing)


def test_few_failures_are_all_repeated() -> None:
    load = Load()
    load.run(600, rate=200, failing=0.05)
    assert sum(load.seconds.values()) - sum(load.requests.values()) == pytest.approx(600 * 200 * 0.0526, rel=0.05)


def test_where_requests_are_few_the_floor_holds() -> None:
    load = Load(floor=3, attempts=5)
    load.run(3600, rate=2, failing=1.0)
    retries = Counter({second: load.seconds[second] - load.requests[second] for second in load.seconds})
    assert max(retries.values()) <= 6  # three in any second, so six at most where two halves meet
    assert sum(retries.values()) > 3600


def test_a_budget_of_nothing_allows_nothing() -> None:
    load = Load(ratio=0.0, floor=0)
    load.run(60, rate=100, failing=1.0)
    assert load.seconds == load.requests


def test_what_was_not_used_yesterday_is_gone() -> None:
    budget = RetryBudget()
    for tenth in range(100):
        budget.tick(tenth / 10, tenth * 1000)
    assert budget.spend(0.2, 0, 9.95, 100_000)
    assert not budget.spend(0.2, 0, 3600.0, 100_000)


def test_what_came_before_the_first_look_counts() -> None:
    budget = RetryBudget()
    assert [budget.spend(0.2, 0, 5000.0, attempts) for attempts in (10, 11, 12)] == [True, True, False]


@pytest.mark.parametrize("now", [0.0, 1e9])
def test_a_budget_begins_at_any_time(now: float) -> None:
    budget = RetryBudget()
    assert budget.spend(0.2, 1, now, 1)
    assert not budget.spend(0.2, 1, now, 2)
    assert budget.spend(0.2, 1, now + 1.1, 2)


def rules(**settings: Any) -> RetryRules:
    """A policy as a worker is given it."""
    given = RetryPolicy.model_validate(settings).model_dump()
    seconds = ("per_try_timeout", "max_retry_after")
    given.update({key: given[key].total_seconds() for key in seconds if given[key] is not None})
    given["backoff"] = {key: value.total_seconds() for key, value in given["backoff"].items()}
    return RetryRules(given, random.Random(7).random)


def test_pauses_are_spread_evenly_below_a_bound_that_doubles_up_to_its_maximum() -> None:
    policy = rules(backoff={"base": "100ms", "max": "350ms"})
    for retry, bound in ((1, 0.1), (2, 0.2), (3, 0.35), (4, 0.35)):
        pauses = sorted(policy.pause(retry) for _ in range(4000))
        assert pauses[0] < 0.01 * bound
        assert 0.99 * bound < pauses[-1] < bound
        assert pauses[2000] == pytest.approx(bound / 2, rel=0.06)
        assert pauses[1000] == pytest.approx(bound / 4, rel=0.1)


def test_statuses_are_named_one_by_one_or_as_a_class() -> None:
    assert statuses_of(["connect", "503", "429"]) == {503, 429}
    assert statuses_of(["5xx"]) == set(range(500, 600))
    assert rules(retry_on=[502, "reset"]).statuses == {502}
    assert rules(attempts=1, retry_on=["5xx"]).statuses == set()


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    clock = datetime(1994, 11, 6, 8, 49, 30, tzinfo=UTC)
    assert retry_after_s(b" 120 ") == 120
    assert retry_after_s(b"Sun, 06 Nov 1994 08:49:37 GMT", clock) == 7
    assert retry_after_s(b"Sun, 06 Nov 1994 08:49:37 -0000", clock) == 7
    assert retry_after_s(b"Sun, 06 Nov 1994 08:49:00 GMT", clock) == 0
    for odd in (b"soon", b"", b"-1", b"1.5", "\u00b2".encode("latin-1"), b"Sun, 99 Nov 1994 08:49:37 GMT"):
        assert retry_after_s(odd, clock) == 0
    assert retry_after_s(b"9" * 5000) == 999_999_999
