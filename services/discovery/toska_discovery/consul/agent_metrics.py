"""`agent/metrics`: the registry's own numbers in the document that Consul's telemetry has.

They are those of `/metrics` on the REST port, which is there for Prometheus.
"""

from datetime import UTC, datetime
from typing import Any

from toska_discovery.consul.endpoints import Endpoints
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply, json_reply


async def get_metrics(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET agent/metrics`."""
    if request.query.first("format") == "prometheus":
        raise Refusal(415, "Prometheus is not enabled here; scrape /metrics of discovery's REST port")
    registry = here.registry
    state = registry.state
    gauges: list[tuple[str, float, dict[str, str]]] = [
        ("toska_discovery.instances", count, {"health": health.value}) for health, count in state.by_health.items()
    ]
    gauges += [
        ("toska_discovery.services", len(state.services), {}),
        ("toska_discovery.nodes", len(state.nodes), {}),
        ("toska_discovery.keys", len(state.keys), {}),
        ("toska_discovery.index", state.index, {}),
        ("toska_discovery.watchers", registry.watchers.blocked, {}),
    ]
    counters: list[tuple[str, int]] = [
        ("toska_discovery.renewals", registry.counts.renewals),
        ("toska_discovery.store_commits", registry.store.commits),
    ]
    body: dict[str, Any] = {
        "Timestamp": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} +0000 UTC",
        "Gauges": [{"Name": name, "Value": value, "Labels": labels} for name, value, labels in gauges],
        "Points": [],
        "Counters": [
            {
                "Name": name, "Count": count, "Rate": 0, "Sum": count, "Min": 0, "Max": 0, "Mean": 0, "Stddev": 0,
                "Labels": {},
            }
            for name, count in counters
        ],
        "Samples": [],
    }  # fmt: skip
    return json_reply(body)
