"""OpenTelemetry traces, switched on by the standard `OTEL_*` variables and otherwise not even imported.

Exporting starts when `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_TRACES_EXPORTER` is
set. Sampler, resource attributes, headers and time-outs are the SDK's to read. Each service has a tracer provider of
its own, so that services sharing a process keep their names.
Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
import sys
from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

log = structlog.get_logger(__name__)

QUIET_PATHS = "/health,/metrics"
"""Probes and scrapes are not traced."""


def is_exporting(environment: Mapping[str, str] | None = None) -> bool:
    """Whether the environment names somewhere to send spans."""
    variables = os.environ if environment is None else environment
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter != "none"
    return any(variables.get(name) for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"))


def instrument(app: FastAPI, service: str, version: str | None = None) -> "TracerProvider | None":
    """Trace the requests of `app` if the environment says where to; the provider must be shut down at the end.

    An app that is instrumented already is left alone.
    """
    if not is_exporting() or getattr(app, "_is_instrumented_by_opentelemetry", False):
        return None
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    exporter = _build_exporter()
    if exporter is None:
        return None
    provider = _build_provider(service, version, exporter)
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls=QUIET_PATHS, exclude_spans=["receive", "send"]
    )
    return provider


def make_global(provider: "TracerProvider") -> None:
    """Let the process's own spans go to `provider` too, unless another was set; only for one service a process."""
    from opentelemetry import trace

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)


@contextmanager
def client_span(provider: "TracerProvider | None", method: str, service: str) -> Generator[None]:
    """A span around a call to another service; nothing without a provider."""
    if provider is None:
        yield
        return
    from opentelemetry.trace import SpanKind

    tracer = provider.get_tracer("toska_common")
    attributes = {"http.request.method": method, "server.address": service, "peer.service": service}
    with tracer.start_as_current_span(f"{method} {service}", kind=SpanKind.CLIENT, attributes=attributes):
        yield


def inject(headers: MutableMapping[str, str]) -> None:
    """Write the context of the current span, whoever made it, into the headers of a call."""
    api = sys.modules.get("opentelemetry.trace")  # never imported for this: without it there can be no span
    if api is not None and api.get_current_span().get_span_context().is_valid:
        from opentelemetry import propagate

        propagate.inject(headers)


def _build_provider(service: str, version: str | None, exporter: "SpanExporter") -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    attributes: dict[str, str | int] = {"process.pid": os.getpid()}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = service
    if version:
        attributes["service.version"] = version
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _build_exporter() -> "SpanExporter | None":
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol and protocol != "http/protobuf":
        log.error("telemetry_not_started", reason=f"protocol {protocol!r} is not installed; use http/protobuf")
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
