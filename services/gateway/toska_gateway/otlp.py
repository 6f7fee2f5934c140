"""Spans as OTLP has them, of the plain data that workers leave.

Sources: https://opentelemetry.io/docs/specs/otlp/, https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

SCOPE: Final = "toska_gateway"
_FLAG_SAMPLED: Final = 1
_FLAG_KNOWN_REMOTENESS: Final = 0x100
_FLAG_REMOTE_PARENT: Final = 0x200

Value = str | int


def encode(requests: Iterable[Mapping[str, Any]], resource: Mapping[str, Value], version: str) -> bytes:
    """The body of an export request: every request's own span and those of its attempts."""
    spans: list[Span] = []
    for request in requests:
        spans.append(_server_span(request))
        spans += [_client_span(request, call, number) for number, call in enumerate(request["calls"])]
    scope = ScopeSpans(scope=InstrumentationScope(name=SCOPE, version=version), spans=spans)
    whole = ResourceSpans(resource=Resource(attributes=_attributes(resource)), scope_spans=[scope])
    return ExportTraceServiceRequest(resource_spans=[whole]).SerializeToString()


def _server_span(request: Mapping[str, Any]) -> Span:
    host, port = _split(request["host"], 443 if request["scheme"] == "https" else 80)
    status = request["status"]
    error = request["error"] or (str(status) if status >= 500 else "")
    # A caller's mistake is none of the server's: of the gateway's own answers only those that say 5xx are errors.
    failed = status >= 500 or (request["error"] and status < 400)
    remote = _FLAG_REMOTE_PARENT if request["parent_id"] else 0
    return Span(
        trace_id=bytes.fromhex(request["trace_id"]),
        span_id=bytes.fromhex(request["span_id"]),
        parent_span_id=bytes.fromhex(request["parent_id"]),
        trace_state=request["state"],
        flags=_FLAG_SAMPLED | _FLAG_KNOWN_REMOTENESS | remote,
        name=f"{request['method']} {request['pattern']}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=_nanoseconds(request["started"]),
        end_time_unix_nano=_nanoseconds(request["ended"]),
        status=Status(code=Status.STATUS_CODE_ERROR) if failed else None,
        attributes=_attributes(
            {
                "http.request.method": request["method"],
                "http.response.status_code": status,
                "http.route": request["pattern"],
                "url.scheme": request["scheme"],
                "url.path": request["path"],
                "server.address": host,
                "server.port": port,
                "client.address": request["client"],
                "network.protocol.version": request["version"],
                "user_agent.original": request["agent"],
                "http.request.body.size": request["received"],
                "http.response.body.size": request["returned"],
                "error.type": error,
                "toska.route": request["route"],
            }
        ),
    )


def _client_span(request: Mapping[str, Any], call: Mapping[str, Any], resends: int) -> Span:
    status, port = call["status"], call["port"]
    error = call["error"] or (str(status) if status >= 400 else "")
    authority = f"[{call['address']}]" if ":" in call["address"] else call["address"]
    attributes: dict[str, Value] = {
        "http.request.method": request["method"],
        "http.response.status_code": status,
        "server.address": call["address"],
        "error.type": error,
        "http.request.resend_count": resends,
        "toska.cluster": call["cluster"],
    }
    if port:
        attributes |= {"server.port": port, "url.full": f"http://{authority}:{port}{request['path']}"}
    return Span(
        trace_id=bytes.fromhex(request["trace_id"]),
        span_id=bytes.fromhex(call["span_id"]),
        parent_span_id=bytes.fromhex(request["span_id"]),
        trace_state=request["state"],
        flags=_FLAG_SAMPLED | _FLAG_KNOWN_REMOTENESS,
        name=request["method"],
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=_nanoseconds(call["started"]),
        end_time_unix_nano=_nanoseconds(call["ended"]),
        status=Status(code=Status.STATUS_CODE_ERROR) if error else None,
        attributes=_attributes(attributes),
    )


def _attributes(values: Mapping[str, Value]) -> Sequence[KeyValue]:
    """Attributes, without those of which nothing is known."""
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
        if value or key.endswith(".size")
    ]


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _split(host: str, port: int) -> tuple[str, int]:
    name, mark, rest = host.rpartition(":")
    return (name, int(rest)) if mark and rest.isdigit() else (host, port)
