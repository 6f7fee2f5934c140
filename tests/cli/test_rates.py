"""Rates between two looks at a gateway's counts."""

from typing import Any

from toska_cli.rates import rates_between
from toska_common.contracts.gateway_stats import ClusterCounts, EndpointCounts, GatewayStats, RouteCounts
from toska_common.quantiles import quantile

BOUNDS = (0.001, 0.01, 0.1)


def look(at: float, instance: str = "one", **more: object) -> GatewayStats:
    return GatewayStats.model_validate(
        {"instance": instance, "at_seconds": at, "workers": 2, "connections": 3, "bounds": BOUNDS, **more}
    )


def test_a_route_has_rates_by_status_and_percentiles_of_what_is_new() -> None:
    before = look(10.0, routes=[RouteCounts(name="a", statuses={"200": 100, "503": 1}, buckets=(101, 0, 0, 0))])
    after = look(
        12.0,
        routes=[
            RouteCounts(
                name="a",
                statuses={"200": 110, "404": 4, "503": 3},
                errors={"rate-limited": 2},
                received_bytes=100,
                sent_bytes=4096,
                buckets=(101, 16, 0, 0),
            ),
            RouteCounts(name="new", statuses={"200": 2}, buckets=(0, 0, 2, 0)),
        ],
    )
    route, new = rates_between(before, after).routes
    assert (route.requests_per_s, route.errors_per_s, route.refusals_per_s) == (8.0, 1.0, 2.0)
    assert (route.received_bytes_per_s, route.sent_bytes_per_s) == (50.0, 2048.0)
    assert route.errors == {"rate-limited": 2}
    # All that is new lies in the second bucket, of which half is 5.5 ms.
    assert (route.latency.p50_ms, route.latency.p99_ms) == (5.5, 9.91)
    assert new.requests_per_s == 1.0
    assert new.latency.p50_ms == 55.0


def test_a_cluster_and_its_endpoints_fail_by_status_by_breaking_off_and_by_not_connecting() -> None:
    counts: dict[str, Any] = {
        "attempts": 10,
        "classes": {"2": 5, "5": 2},
        "failures": {"reset": 3},
        "connect_failures": {"refused": 1},
        "active": 4,
        "idle": 5,
    }
    cluster = ClusterCounts(
        name="app", **counts, pending=6, circuits_open=1, endpoints=(EndpointCounts(key="e", **counts, ejected=2),)
    )
    rates = rates_between(look(0.0), look(2.0, clusters=[cluster]))
    (whole,), (endpoint,) = rates.clusters, rates.endpoints
    for one in (whole, endpoint):
        assert (one.attempts_per_s, one.errors_per_s, one.active, one.idle) == (5.0, 3.0, 4, 5)
        assert one.failures == {"reset": 3, "connect refused": 1}
        assert one.latency.p50_ms is None
    assert (whole.pending, whole.state, endpoint.state) == (6, "1 open", "ejected by 2")


def test_after_a_restart_everything_is_new_and_nothing_is_negative() -> None:
    before = look(100.0, routes=[RouteCounts(name="a", statuses={"200": 1000}, buckets=(1000, 0, 0, 0))])
    after = look(102.0, "two", routes=[RouteCounts(name="a", statuses={"200": 4}, buckets=(4, 0, 0, 0))])
    (route,) = rates_between(before, after).routes
    assert route.requests_per_s == 2.0
    assert route.latency.p50_ms == 0.5


def test_percentiles_of_nothing_and_of_what_exceeds_every_bound() -> None:
    assert quantile(BOUNDS, (0, 0, 0, 0), 0.5) is None
    assert quantile(BOUNDS, (0, 0, 0, 5), 0.5) == 0.1
    assert quantile(BOUNDS, (1, 0, 0, 0), 1.0) == 0.001
