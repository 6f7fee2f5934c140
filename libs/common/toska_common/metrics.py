"""Prometheus metrics of one service: its own registry, its HTTP requests, and `/metrics`.

Services that share a process share no registry. Labels are bounded: the route's template and never the path, the
methods of RFC 9110 and no others, and at most `MAX_ROUTES` templates.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
UNMATCHED = "(unmatched)"
OTHER = "(other)"
"""A route without a template of its own, such as a mounted file, or one too many."""
MAX_ROUTES = 500
"""Templates beyond this number are counted as `OTHER`: a mount with a parameter has one for each value."""


class ServiceMetrics:
    """The metric registry of one service; `registry` takes further metrics."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("toska_http_requests", "HTTP requests answered", labels, registry=self.registry)
        self._duration = Histogram(
            "toska_http_request_duration_seconds",
            "Time from the request's head to the end of its response",
            labels,
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._in_flight = Gauge("toska_http_requests_in_flight", "HTTP requests being served", registry=self.registry)
        # Looking children up by labels costs 3 µs each; there are few and they live as long as the service.
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}
        self._routes: set[str] = set()

    def begin(self) -> None:
        """A request came in."""
        self._in_flight.inc()

    def end(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request that came in was answered, or given up (status 499)."""
        self._in_flight.dec()
        key = (method if method in METHODS else OTHER, self._bounded(route), status)
        child = self._children.get(key)
        if child is None:
            labels = (key[0], key[1], str(status))
            child = self._children[key] = (self._requests.labels(*labels), self._duration.labels(*labels))
        child[0].inc()
        child[1].observe(seconds)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics in the format that `accept` asks for, and its content type."""
        return render(self.registry.collect(), accept)

    def add_to(self, app: FastAPI) -> None:
        """Count the requests of `app` and give it `/metrics`, ahead of its own routes and outside its schema."""

        async def metrics(request: Request) -> Response:
            body, content_type = self.render(request.headers.get("accept", ""))
            return Response(body, headers={"content-type": content_type})

        app.router.routes.insert(0, Route("/metrics", metrics, name="metrics"))
        app.add_middleware(MetricsMiddleware, metrics=self)

    def _bounded(self, route: str) -> str:
        if route not in self._routes:
            if len(self._routes) >= MAX_ROUTES:
                return OTHER
            self._routes.add(route)
        return route


class _Collected:
    """Metrics in the one form that the library's encoders take.

    Without the `_created` samples, which double a scrape and which Prometheus drops by default.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def render(metrics: Iterable[Metric], accept: str = "") -> tuple[bytes, str]:
    """Metrics in the format that an `Accept` header asks for, and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(cast("CollectorRegistry", _Collected(metrics))), content_type


class MetricsMiddleware:
    """ASGI middleware that counts and times HTTP requests."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_watching(scope):
            await self._app(scope, receive, send)
            return
        status = 500  # what the server answers if the app raises before it has

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begun = time.perf_counter()
        self._metrics.begin()
        try:
            await self._app(scope, receive, note_status)
        except asyncio.CancelledError:
            status = 499  # the caller went away, or the server did
            raise
        finally:
            self._metrics.end(scope["method"], route_template(scope), status, time.perf_counter() - begun)


def is_watching(scope: Scope) -> bool:
    """Whether a request is a probe or a scrape: they come every second or so and would hide the real ones' latency."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == "/metrics" or path == "/health" or path.startswith("/health/")


def route_template(scope: Scope) -> str:
    """The template of the route that served a request, such as `/orders/{id}`, with the prefix it is mounted under."""
    # FastAPI keeps the template of a route of an included router, prefix and all, in its own part of the scope.
    context = scope.get("fastapi", {}).get("effective_route_context")
    route = context if context is not None else scope.get("route")
    template: str | None = getattr(route, "path_format", None) or getattr(route, "path", None)
    if template is None:
        return OTHER if "endpoint" in scope else UNMATCHED
    # A mount adds its own path to the root path, which may have begun as the prefix that a gateway took off.
    mount: str = scope.get("root_path", "").removeprefix(scope.get("app_root_path", scope.get("root_path", "")))
    return f"{mount}{template}"
