"""Clusters: how endpoints are chosen, reached, and left alone when they fail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from toska_common.contracts.routing import (
    Cluster,
    Endpoint,
    HealthCheck,
    Outlier,
    RetryPolicy,
    Route,
    RouteTable,
)
from toska_common.contracts.tls import ClusterTls
from toska_common.envoy import failovers
from toska_common.envoy.endpoints import has_names, load_assignment
from toska_common.envoy.failovers import Chain, Share, Shares
from toska_common.envoy.options import Options
from toska_common.envoy.words import Json, seconds, typed

_CONNECT_TIMEOUT: Final = timedelta(seconds=2)
_UNBOUNDED: Final = 2**32 - 1
_BUFFER_BYTES: Final = 65536
_LEAST_LOCAL_FAILURES: Final = 3
_PANIC_OF_NONE: Final = 1.0
"""Percent, and Envoy counts in whole ones: with none, and with one well of more than a hundred."""
_SWEEP: Final = "1s"
_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_SYSTEM_CA: Final = "/etc/ssl/certs/ca-certificates.crt"
_STREAMS: Final = {
    "max_concurrent_streams": 100,
    "initial_stream_window_size": 65536,
    "initial_connection_window_size": 1_048_576,
}


@dataclass
class Use:
    """What the routes that lead to a cluster say of it: refusals see to it that they agree."""

    connect_timeouts: list[timedelta] = field(default_factory=list[timedelta])
    retries: list[RetryPolicy] = field(default_factory=list[RetryPolicy])


Uses = Mapping[str, Use]
"""By cluster."""


def uses_of(table: RouteTable) -> Uses:
    """What all routes say, looked through once."""
    uses: dict[str, Use] = {}
    for route in table.routes:
        for name in named(route, table):
            uses.setdefault(name, Use()).connect_timeouts.append(route.policies.connect_timeout)
        for name in {part.cluster for part in route.to}:
            uses.setdefault(name, Use()).retries.append(route.policies.retry)
    return uses


def named(route: Route, table: RouteTable) -> list[str]:
    """Every cluster that a route can lead to, those that take over from others included, each once."""
    found: dict[str, None] = {}
    for _, name in route.named_clusters():
        chain = failovers.find_chain(name, route, table)
        found |= dict.fromkeys([name] if chain is None else chain.members)
    return list(found)


def aggregate_resource(chain: Chain, table: RouteTable, options: Options, uses: Uses) -> Json:
    """A cluster with those that take over from it. Connections, and their bounds, are those of its members."""
    cluster, use = table.clusters[chain.cluster], uses.get(chain.cluster, Use())
    bounds = _thresholds(cluster, use, options)
    if failovers.is_fallback(chain):
        bounds["retry_budget"] |= {"budget_percent": {"value": 100}}  # going to a fallback is no retry
    return {
        **failovers.aggregate(chain),
        "connect_timeout": seconds(max(use.connect_timeouts, default=_CONNECT_TIMEOUT)),
        "circuit_breakers": {"thresholds": [bounds]},
        **_panic(cluster),
    }


def cluster_resource(
    name: str,
    table: RouteTable,
    endpoints: Sequence[Endpoint],
    options: Options,
    uses: Uses | None = None,
    shares: Shares | None = None,
) -> Json:
    """One cluster; its endpoints come by themselves, unless Envoy has to look names up.

    `uses` is `uses_of(table)`, and `shares` is `failovers.shares_of(table)`, for whoever translates many.
    """
    use = (uses_of(table) if uses is None else uses).get(name, Use())
    share = (failovers.shares_of(table) if shares is None else shares).get(name)
    cluster = table.clusters[name]
    made: Json = {
        "name": name,
        "connect_timeout": seconds(max(use.connect_timeouts, default=_CONNECT_TIMEOUT)),
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "circuit_breakers": {"thresholds": [_thresholds(cluster, use, options)]},
        "outlier_detection": _outliers(cluster.outlier),
        "typed_extension_protocol_options": {_OPTIONS: _protocol(cluster)},
        **_panic(cluster),
        "ignore_health_on_host_removal": True,
        **_balancer(cluster),
        **_discovery(name, cluster, endpoints, options, share),
    }
    if cluster.health_check is not None:
        made["health_checks"] = [_health_check(cluster.health_check)]
    if cluster.tls is not None:
        made["metadata"] = options.tls_metadata()
        made["transport_socket"] = upstream_tls(cluster.tls, options, http2=cluster.protocol == "http2")
    return made


def _panic(cluster: Cluster) -> Json:
    return {"common_lb_config": {"healthy_panic_threshold": {"value": max(cluster.panic_percent, _PANIC_OF_NONE)}}}


def _discovery(
    name: str, cluster: Cluster, endpoints: Sequence[Endpoint], options: Options, share: Share | None
) -> Json:
    if has_names(endpoints) and options.addresses is None:
        return {
            "type": "STRICT_DNS",
            "respect_dns_ttl": True,
            "load_assignment": load_assignment(name, cluster, endpoints, options, share),
        }
    return {
        "type": "EDS",
        "eds_cluster_config": {"service_name": name, "eds_config": options.source("endpoints", name)},
    }


def _thresholds(cluster: Cluster, use: Use, options: Options) -> Json:
    limits = cluster.limits
    made: Json = {
        "max_connections": _number(limits.max_connections * options.workers),
        "max_pending_requests": _number(limits.max_pending * options.workers),
        "max_requests": _number(limits.max_requests * options.workers or _UNBOUNDED),
        "track_remaining": False,
    }
    if use.retries:
        made["retry_budget"] = {
            "budget_percent": {"value": 100 * max(retry.budget for retry in use.retries)},
            "min_retry_concurrency": max(retry.budget_floor for retry in use.retries),
        }
    return made


def _number(value: int) -> int:
    """What Envoy takes of a number: beyond it there is no difference."""
    return min(value, _UNBOUNDED)


def _outliers(outlier: Outlier) -> Json:
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": _number(max(outlier.consecutive_failures, _LEAST_LOCAL_FAILURES)),
        "enforcing_consecutive_local_origin_failure": 100,
        "consecutive_gateway_failure": _number(outlier.consecutive_gateway_errors or _UNBOUNDED),
        "enforcing_consecutive_gateway_failure": 100 if outlier.consecutive_gateway_errors else 0,
        "consecutive_5xx": _number(outlier.consecutive_5xx or _UNBOUNDED),
        "enforcing_consecutive_5xx": 100 if outlier.consecutive_5xx else 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "interval": _SWEEP,
        "base_ejection_time": seconds(outlier.base_ejection),
        "max_ejection_time": seconds(outlier.max_ejection),
        "max_ejection_percent": round(outlier.max_ejected_percent),
        "always_eject_one_host": True,
    }


def _balancer(cluster: Cluster) -> Json:
    window = {"slow_start_window": seconds(cluster.slow_start)} if cluster.slow_start else None
    match cluster.balancer:
        case "round_robin" | "weighted_round_robin":
            config = {"round_robin_lb_config": {"slow_start_config": window}} if window else {}
            return {"lb_policy": "ROUND_ROBIN", **config}
        case "random":
            return {"lb_policy": "RANDOM"}
        case "ring_hash":
            return {"lb_policy": "RING_HASH"}
        case "maglev" | "ip_hash":
            return {"lb_policy": "MAGLEV"}
        case _:
            config = {"least_request_lb_config": {"slow_start_config": window}} if window else {}
            return {"lb_policy": "LEAST_REQUEST", **config}


def _protocol(cluster: Cluster) -> Json:
    options = typed(
        ".upstreams.http.v3.HttpProtocolOptions",
        common_http_protocol_options={"idle_timeout": seconds(cluster.keep_alive), "max_response_headers_kb": 256},
    )
    if cluster.protocol == "http2":
        options["explicit_http_config"] = {"http2_protocol_options": _STREAMS}
    elif cluster.tls is not None:
        options["auto_config"] = {"http_protocol_options": {}, "http2_protocol_options": _STREAMS}
    else:
        # Without TLS there is nothing to agree on a protocol with.
        options["explicit_http_config"] = {"http_protocol_options": {}}
    return options


def _health_check(check: HealthCheck) -> Json:
    http: Json = {"path": check.path, "expected_statuses": [_statuses(one) for one in check.expect]}
    if check.host is not None:
        http["host"] = check.host
    return {
        "timeout": seconds(check.timeout),
        "interval": seconds(check.interval),
        "no_traffic_interval": seconds(check.interval),
        "no_traffic_healthy_interval": seconds(check.interval),
        "healthy_threshold": check.rise,
        "unhealthy_threshold": check.fall,
        "http_health_check": http,
    }


def _statuses(text: str) -> Json:
    if text.endswith("xx"):
        first = int(text[0]) * 100
        return {"start": str(first), "end": str(first + 100)}
    low, _, high = text.partition("-")
    return {"start": low, "end": str(int(high or low) + 1)}


def upstream_tls(tls: ClusterTls, options: Options, *, server_name: str = "", http2: bool = False) -> Json:
    """TLS towards endpoints."""
    name = tls.server_name or server_name
    common: Json = {
        "tls_params": {"tls_minimum_protocol_version": f"TLSv{tls.min_version.replace('.', '_')}"},
    }
    if tls.certificate is not None and tls.key is not None:
        common["tls_certificates"] = [certificate(options.file(tls.certificate), options.file(tls.key))]
    if not tls.insecure:
        validation: Json = {"trusted_ca": {"filename": options.file(tls.ca) if tls.ca else _SYSTEM_CA}}
        if name:
            validation["match_typed_subject_alt_names"] = [
                {"san_type": kind, "matcher": {"exact": name}} for kind in ("DNS", "IP_ADDRESS")
            ]
        common["validation_context"] = validation
    if http2:
        common["alpn_protocols"] = ["h2"]
    context = typed(".transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context=common)
    if name:
        context["sni"] = name
    else:
        context |= {"auto_host_sni": True, "auto_sni_san_validation": not tls.insecure}
    return {"name": "toska.tls", "typed_config": context}


def certificate(chain: str, key: str) -> Json:
    """A certificate with its key, from files."""
    return {"certificate_chain": {"filename": chain}, "private_key": {"filename": key}}
