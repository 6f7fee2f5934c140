"""What `Mesh` puts on an app, and the care it takes not to take anything away.

Everything happens when the app builds its middleware, at its first request or its lifespan: whatever the author adds
after `Mesh(app)`, routes and handlers and middleware, is there by then.
"""

from collections.abc import Callable, Iterable

from fastapi import FastAPI
from starlette.routing import BaseRoute, Match, Mount, NoMatchFound, Route
from starlette.types import ASGIApp, Scope


def when_built(app: FastAPI, prepare: Callable[[], None]) -> None:
    """Call `prepare` once, just before `app` builds its middleware."""
    build = app.build_middleware_stack

    def prepare_and_build() -> ASGIApp:
        prepare()
        return build()

    # An instance attribute, as OpenTelemetry's instrumentation does it too: the two nest in either order.
    app.build_middleware_stack = prepare_and_build


def add_routes(app: FastAPI, routes: Iterable[Route]) -> None:
    """Put `routes` ahead of the app's own, except where the app has a route for exactly that path."""
    app.router.routes[:0] = [route for route in routes if not _is_taken(app.router.routes, route.path)]


def find_path(app: FastAPI, name: str) -> str:
    """The path of the app's route of this name; empty if it has none."""
    try:
        return str(app.url_path_for(name))
    except NoMatchFound:
        return ""


def _is_taken(routes: Iterable[BaseRoute], path: str) -> bool:
    scope: Scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "path_params": {}}
    for route in routes:
        match, found = route.matches(dict(scope))
        if match is not Match.NONE and not isinstance(route, Mount):
            # A parameter in it is a pattern that happens to fit, such as `/{page}`; those come after ours.
            return not found.get("path_params")
    return False
