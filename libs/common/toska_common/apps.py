"""The FastAPI app of a service's listener: errors, health, metrics, traces and docs as everywhere in the mesh."""

from typing import Any

from fastapi import FastAPI

from toska_common import __version__, problem, telemetry
from toska_common.docs import add_docs
from toska_common.health import HealthChecks
from toska_common.http_context import HTTPContextMiddleware
from toska_common.metrics import ServiceMetrics


def create_management_app(
    title: str,
    *,
    health: HealthChecks,
    metrics: ServiceMetrics | None = None,
    description: str = "",
    version: str = __version__,
    **options: Any,
) -> FastAPI:
    """Build an app with problem details, `/health/…`, `/metrics`, `/openapi.json` and `/docs`.

    Args:
        title: Shown in the docs.
        health: The service's checks; shared where a service has several listeners.
        metrics: Where its requests are counted; shared likewise. A registry of its own if left out.
        description: Shown in the docs, Markdown.
        version: Of the API.
        options: Anything else that `FastAPI` takes.
    """
    app = FastAPI(title=title, description=description, version=version, openapi_url=None, redoc_url=None, **options)
    problem.install(app)
    health.add_to(app)
    (metrics or ServiceMetrics()).add_to(app)
    app.add_middleware(HTTPContextMiddleware)
    add_docs(app)
    telemetry.instrument(app, health.service, version)
    return app
