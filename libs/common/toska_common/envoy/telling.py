"""What Envoy counts and writes of requests: counters and histograms by route, the access log, and spans.

Counters come from Envoy's access logger for statistics, with the route's name and the status as tags, so that the
gateway can show them under the names of its own metrics.
"""

from collections.abc import Mapping
from typing import Final

from toska_common.contracts.routing import AccessLog, RouteTable, Tracing
from toska_common.contracts.routing.seeing import STDOUT
from toska_common.envoy.headers import CLIENT
from toska_common.envoy.options import Options
from toska_common.envoy.words import Json, extension, fraction, literal, typed

PREFIX: Final = "toska"
"""How the names of these counters begin, before a dot."""
REQUESTS: Final = "requests"
DURATION: Final = "duration"
RECEIVED: Final = "received"
SENT: Final = "sent"
ROUTE_TAG: Final = "route"
STATUS_TAG: Final = "status"
ERROR_TAG: Final = "error"
COLLECTOR: Final = "toska-collector"
WATCH: Final = "toska.watch"
"""Metadata of routes that are under watch: what their requests are counted under besides."""
WATCH_TAG: Final = "watch"
WATCHED: Final = "watched"
WATCHED_TIME: Final = "watched_time"
CLUSTER_TAG: Final = "to"
FLAGS_TAG: Final = "flags"
ATTEMPTS_TAG: Final = "attempts"
FALLBACK_TAG: Final = "fallback"
HEDGED_TAG: Final = "hedged"
_STATS: Final = ".access_loggers.stats.v3.Config"
_LINE: Final = {
    "time": "%START_TIME%",
    "client": CLIENT,
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "error": "%RESP(X-TOSKA-ERROR)%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "endpoint": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "flags": "%RESPONSE_FLAGS%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace_id": "%TRACE_ID%",
}


def access_logs(table: RouteTable, options: Options) -> list[Json]:
    """Of every listener."""
    logs = [extension("toska.stats", _STATS, **_counted())]
    if any(route.policies.watch for route in table.routes):
        logs.append(extension("toska.watch", _STATS, **_watched()))
    if table.server.access_log is not None:
        logs.append(_file(table.server.access_log, options))
    return logs


def _counted() -> Json:
    by_route = [{"name": ROUTE_TAG, "value_format": "%ROUTE_NAME%"}]
    by_answer = [
        *by_route,
        {"name": STATUS_TAG, "value_format": "%RESPONSE_CODE%"},
        {"name": ERROR_TAG, "value_format": "%RESP(X-TOSKA-ERROR)%"},
    ]
    return {
        "stat_prefix": PREFIX,  # (newer ones want a scope, which the published messages do not know yet)
        "counters": [
            {"stat": {"name": REQUESTS, "tags": by_answer}, "value_fixed": "1"},
            {"stat": {"name": RECEIVED, "tags": by_route}, "value_format": "%BYTES_RECEIVED%"},
            {"stat": {"name": SENT, "tags": by_route}, "value_format": "%BYTES_SENT%"},
        ],
        "histograms": [
            {
                "stat": {"name": DURATION, "tags": by_route},
                "unit": "Milliseconds",
                "value_format": "%DURATION%",
            }
        ],
    }


def _watched() -> Json:
    """Requests by token and by the cluster that was chosen for them, with all that says whether they failed."""
    to_one = [
        {"name": WATCH_TAG, "value_format": f"%METADATA(ROUTE:{WATCH}:{WATCH_TAG})%"},
        {"name": CLUSTER_TAG, "value_format": "%UPSTREAM_CLUSTER%"},
        {"name": FLAGS_TAG, "value_format": "%RESPONSE_FLAGS%"},
        {"name": ERROR_TAG, "value_format": "%RESP(X-TOSKA-ERROR)%"},
        {"name": ATTEMPTS_TAG, "value_format": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"},
    ]
    with_answer = [
        *to_one,
        {"name": STATUS_TAG, "value_format": "%RESPONSE_CODE%"},
        {"name": FALLBACK_TAG, "value_format": "%RESP(X-TOSKA-FALLBACK)%"},
        {"name": HEDGED_TAG, "value_format": f"%METADATA(ROUTE:{WATCH}:{HEDGED_TAG})%"},
    ]
    time = {"unit": "Microseconds", "value_format": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"}
    return {
        "stat_prefix": PREFIX,
        "counters": [{"stat": {"name": WATCHED, "tags": with_answer}, "value_fixed": "1"}],
        "histograms": [{"stat": {"name": WATCHED_TIME, "tags": to_one}, **time}],
    }


def watch_metadata(token: str, *, hedged: bool) -> Json:
    """Of a route under watch; where it hedges, a further attempt does not say that the first has failed."""
    return {WATCH: {WATCH_TAG: token, **({HEDGED_TAG: "true"} if hedged else {})}}


def _file(log: AccessLog, options: Options) -> Json:
    line = {**_LINE, "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"} if log.query else _LINE
    form: Json = {"log_format": {"json_format": line, "omit_empty_values": True}}
    if log.path == STDOUT:
        made = extension("toska.log", ".access_loggers.stream.v3.StdoutAccessLog", **form)
    else:
        made = extension("toska.log", ".access_loggers.file.v3.FileAccessLog", path=options.file(log.path), **form)
    if log.sample < 1:
        sampled: Json = {
            "runtime_filter": {
                "runtime_key": "toska.access_log",
                "percent_sampled": {"numerator": round(log.sample * 1_000_000), "denominator": "MILLION"},
                "use_independent_randomness": True,
            }
        }
        failed: Json = {
            "status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "none"}}}
        }
        made["filter"] = {"or_filter": {"filters": [sampled, failed]}} if log.errors_always else sampled
    return made


def tracing(settings: Tracing | None) -> Json:
    """Of a connection manager. Without a collector traces go on, and are begun, and nothing is told of them."""
    # (Envoy wants to know of a collector; one that is no cluster is sent nothing.)
    url = collector_url(settings) if settings is not None else "http://localhost/v1/traces"
    headers: Mapping[str, str] = settings.headers if settings is not None else {}
    provider = typed(
        "envoy.config.trace.v3.OpenTelemetryConfig",
        service_name=settings.service_name if settings is not None else "toska-gateway",
        http_service={
            "http_uri": {"uri": url, "cluster": COLLECTOR, "timeout": "5s"},
            "request_headers_to_add": [
                {"header": {"key": name, "value": literal(value)}} for name, value in headers.items()
            ],
        },
    )
    provider["sampler"] = _sampler(settings.sample if settings is not None else 0)
    return {
        "random_sampling": {"value": 100},
        "client_sampling": {"value": 100},
        "overall_sampling": {"value": 100},
        "provider": {"name": "toska.opentelemetry", "typed_config": provider},
    }


def _sampler(share: float) -> Json:
    """As whoever came before has decided, and for the traces that begin here by chance."""
    by_chance = extension(
        "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based",
        ".tracers.opentelemetry.samplers.v3.TraceIdRatioBasedSamplerConfig",
        sampling_percentage=fraction(100 * share),
    )
    return extension(
        "envoy.tracers.opentelemetry.samplers.parent_based",
        ".tracers.opentelemetry.samplers.v3.ParentBasedSamplerConfig",
        wrapped_sampler=by_chance,
    )


def collector_url(settings: Tracing) -> str:
    """Where spans go."""
    return settings.endpoint if settings.endpoint.endswith("/v1/traces") else f"{settings.endpoint}/v1/traces"
