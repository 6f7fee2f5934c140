"""Which endpoint takes the next request, and for how long one that fails is left out."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from toska_common.balancing.base import hash_of
from toska_gateway.worker.cluster import Cluster
from toska_gateway.worker.endpoint import Endpoint

OUTLIER: dict[str, Any] = {
    "consecutive_failures": 1,
    "consecutive_gateway_errors": 0,
    "consecutive_5xx": 0,
    "base_ejection": 5.0,
    "max_ejection": 60.0,
    "max_ejected_percent": 100.0,
}


def settings(**changes: Any) -> dict[str, Any]:
    """A cluster's settings as a worker is given them."""
    return {
        "balancer": "round_robin",
        "limits": {"max_connections": 10, "max_pending": 10, "max_requests": 0, "pending_timeout": 5.0},
        "outlier": OUTLIER,
        "keep_alive": 30.0,
        **changes,
    }


def cluster_of(*weights: int, **changes: Any) -> tuple[Cluster, list[Endpoint]]:
    """A cluster with endpoints of these weights."""
    cluster = Cluster("app")
    cluster.configure(settings(**changes))
    cluster.update([item(number, weight) for number, weight in enumerate(weights)], "1")
    return cluster, list(cluster.endpoints.values())


def item(number: int, weight: int = 1, port: int | None = None) -> dict[str, Any]:
    """An endpoint as a worker is given it."""
    return {"key": str(number), "address": "127.0.0.1", "port": port or 1000 + number, "weight": weight}


def picked(cluster: Cluster, times: int) -> list[str]:
    """The keys of the endpoints that so many requests go to."""
    found = [cluster.pick() for _ in range(times)]
    return [endpoint.key for endpoint in found if endpoint is not None]


def test_round_robin_takes_turns() -> None:
    cluster, _ = cluster_of(1, 1, 1)
    turns = picked(cluster, 6)
    assert turns[:3] == turns[3:]
    assert set(turns[:3]) == {"0", "1", "2"}


def test_round_robin_spreads_a_heavy_endpoint_over_the_round() -> None:
    cluster, _ = cluster_of(4, 2, 1)
    turns = "".join(picked(cluster, 7))
    assert Counter(turns) == {"0": 4, "1": 2, "2": 1}
    assert "000" not in turns + turns
    assert "11" not in turns + turns


def test_of_two_drawn_at_random_the_less_loaded_takes_the_request() -> None:
    cluster, endpoints = cluster_of(1, 1, 1, 1, balancer="least_request")
    endpoints[0].in_flight = 100
    counts = Counter(picked(cluster, 9000))
    assert counts["0"] == 0  # whichever it is drawn with has less to do
    assert all(2700 < counts[key] < 3300 for key in "123")


def test_power_of_two_choices_keeps_load_even_where_chance_alone_would_not() -> None:
    cluster, endpoints = cluster_of(*[1] * 20, balancer="least_request")
    for _ in range(2000):
        endpoint = cluster.pick()
        assert endpoint is not None
        endpoint.in_flight += 1
    assert (
        max(e.in_flight for e in endpoints) - min(e.in_flight for e in endpoints) <= 8
    )  # at random it would be about 37


@pytest.mark.parametrize("balancer", ["least_request", "round_robin"])
def test_without_load_shares_are_those_of_the_weights(balancer: str) -> None:
    cluster, _ = cluster_of(3, 1, balancer=balancer)
    counts = Counter(picked(cluster, 8000))
    assert 2.6 < counts["0"] / counts["1"] < 3.5


def test_under_load_least_request_fills_endpoints_by_their_weights() -> None:
    cluster, endpoints = cluster_of(3, 1, balancer="least_request")
    for _ in range(4000):
        endpoint = cluster.pick()
        assert endpoint is not None
        endpoint.in_flight += 1
    assert 2.8 < endpoints[0].in_flight / endpoints[1].in_flight < 3.2


def test_a_cluster_without_endpoints_has_none_to_pick() -> None:
    cluster, _ = cluster_of()
    assert cluster.pick() is None


def test_a_second_attempt_goes_to_another_endpoint_if_there_is_one() -> None:
    cluster, endpoints = cluster_of(1, 1, 1)
    assert all(cluster.pick(endpoints[1]) is not endpoints[1] for _ in range(10))
    alone, only = cluster_of(1)
    assert alone.pick(only[0]) is only[0]


def test_a_failed_connect_ejects_an_endpoint_until_its_time_is_over() -> None:
    cluster, endpoints = cluster_of(1, 1)
    assert cluster.connect_failed(endpoints[0], 100.0)
    assert set(picked(cluster, 4)) == {"1"}
    cluster.refresh(104.9)
    assert set(picked(cluster, 4)) == {"1"}
    cluster.refresh(105.0)
    assert set(picked(cluster, 4)) == {"0", "1"}


def test_each_ejection_in_a_row_is_twice_as_long_up_to_the_longest() -> None:
    cluster, endpoints = cluster_of(1, 1)
    endpoint, now, lengths = endpoints[0], 0.0, list[float]()
    for _ in range(6):
        assert cluster.connect_failed(endpoint, now)
        lengths.append(endpoint.ejected_until - now)
        now = endpoint.ejected_until
    assert lengths == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_an_endpoint_that_stays_away_for_days_goes_on_being_ejected() -> None:
    cluster, endpoints = cluster_of(1, 1)
    endpoint, now = endpoints[0], 0.0
    for _ in range(2000):
        assert cluster.connect_failed(endpoint, now)
        assert endpoint.ejected_until - now <= 60.0
        now = endpoint.ejected_until


def test_a_good_connect_forgets_the_failures_and_ends_the_ejection() -> None:
    cluster, endpoints = cluster_of(1, 1)
    cluster.connect_failed(endpoints[0], 0.0)
    cluster.connected(endpoints[0], 1.0)
    assert set(picked(cluster, 4)) == {"0", "1"}
    cluster.connect_failed(endpoints[0], 2.0)
    assert endpoints[0].ejected_until == 7.0


def test_several_failures_in_a_row_are_needed_if_so_configured() -> None:
    outlier = {**OUTLIER, "consecutive_failures": 3}
    cluster, endpoints = cluster_of(1, 1, outlier=outlier)
    assert not cluster.connect_failed(endpoints[0], 0.0)
    assert not cluster.connect_failed(endpoints[0], 0.0)
    cluster.connected(endpoints[0], 0.0)
    assert not cluster.connect_failed(endpoints[0], 0.0)
    assert not cluster.connect_failed(endpoints[0], 0.0)
    assert cluster.connect_failed(endpoints[0], 0.0)


def test_when_all_are_ejected_all_are_tried() -> None:
    cluster, endpoints = cluster_of(1, 1, 1)
    for endpoint in endpoints:
        assert cluster.connect_failed(endpoint, 0.0)
    assert set(picked(cluster, 6)) == {"0", "1", "2"}
    assert not cluster.connect_failed(endpoints[0], 1.0)  # it is out already
    assert cluster.pick(endpoints[0]) is not endpoints[0]


def test_endpoints_live_on_across_updates_under_their_key() -> None:
    cluster, endpoints = cluster_of(1, 1, 1)
    endpoints[0].in_flight = 3
    cluster.connect_failed(endpoints[1], 0.0)
    gone = cluster.update([item(0, weight=5), item(1), item(2, port=99), item(3)], "2", 1.0)
    assert gone == [endpoints[2]]
    assert endpoints[2].removed
    assert cluster.endpoints["0"] is endpoints[0]
    assert (endpoints[0].in_flight, endpoints[0].weight) == (3, 5)
    assert cluster.endpoints["2"].port == 99
    assert "1" not in picked(cluster, 20)
    assert {"0", "2", "3"} == set(picked(cluster, 20))


def keyed(soon: Callable[[Callable[[], None]], object] | None, *numbers: int, balancer: str = "maglev") -> Cluster:
    """A cluster that goes by a key."""
    cluster = Cluster("app", soon=soon)
    cluster.configure(settings(balancer=balancer, hash_key={"path": True}))
    cluster.update([item(number) for number in numbers], "1")
    return cluster


def owners(cluster: Cluster) -> list[str]:
    """Whose each of many keys is."""
    found = [cluster.pick(None, hash_of(b"%d" % number)) for number in range(2000)]
    return [endpoint.key for endpoint in found if endpoint is not None]


@pytest.mark.parametrize("balancer", ["maglev", "ring_hash"])
def test_a_large_table_is_filled_beside_requests_while_the_one_before_goes_on(balancer: str) -> None:
    turns: list[Callable[[], None]] = []
    cluster = keyed(turns.append, 0, 1, 2, 3, balancer=balancer)
    before = owners(cluster)
    assert turns == []  # the first one is made at once: there is none to go on with
    cluster.update([item(number) for number in (0, 1, 2, 4)], "2", 1.0)
    meanwhile = owners(cluster)
    assert set(meanwhile) == {"0", "1", "2"}
    assert all(now == was for now, was in zip(meanwhile, before, strict=True) if was != "3")
    cluster.connect_failed(cluster.endpoints["1"], 2.0)
    assert set(owners(cluster)) == {"0", "2"}
    cluster.connected(cluster.endpoints["1"], 3.0)
    while turns:
        turns.pop(0)()
    assert owners(cluster) == owners(keyed(None, 0, 1, 2, 4, balancer=balancer))


def test_of_two_changes_in_a_row_the_last_one_counts() -> None:
    turns: list[Callable[[], None]] = []
    cluster = keyed(turns.append, 0, 1, 2)
    cluster.update([item(number) for number in (0, 1)], "2", 1.0)
    cluster.update([item(number) for number in (0, 1, 5)], "3", 1.0)
    while turns:
        turns.pop(0)()
    assert owners(cluster) == owners(keyed(None, 0, 1, 5))


def test_when_nobody_of_before_is_left_the_new_table_is_made_at_once() -> None:
    turns: list[Callable[[], None]] = []
    cluster = keyed(turns.append, 0, 1)
    cluster.update([item(7), item(8)], "2", 1.0)
    assert set(owners(cluster)) == {"7", "8"}
    assert turns == []
