"""`/docs` and `/openapi.json` of the whole mesh: one Swagger UI with a choice of service, from files of our own.

"Try it out" calls the place that the page came from, so it works where the page is opened through the data listener;
on the admin listener the page sends readers there.
"""

from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from toska_common.errors import MeshError
from toska_common.problem import problem_response

from toska_gateway.handlers.openapi import find_catalog, json_response
from toska_gateway.parts import PartsSlot

_ASSETS = {
    "docs.js": "text/javascript; charset=utf-8",
    "docs.css": "text/css; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
# Descriptions come from users' services, so the page may load nothing and talk to nobody but its own origin.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def read_static(name: str) -> bytes:
    """One of the files in `static`; kept, since each is read by every visitor."""
    return (resources.files("toska_gateway") / "static" / name).read_bytes()


def html_response(content: bytes | str) -> Response:
    """A page of ours, under its policy."""
    headers = {"content-security-policy": PAGE_POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}
    return Response(content, media_type="text/html", headers=headers)


def docs_routes(slot: PartsSlot) -> list[Route]:
    """The page, what it loads, and the merged document."""

    async def page(request: Request) -> Response:
        elsewhere = _place_of_the_data_listener(slot, request)
        return html_response(read_static("docs.html")) if elsewhere is None else RedirectResponse(elsewhere, 307)

    async def asset(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        headers = {"content-type": _ASSETS[name], "cache-control": "public, max-age=300"}
        return Response(read_static(name), headers=headers)

    async def merged(_: Request) -> Response:
        try:
            return json_response(await find_catalog(slot).merged())
        except MeshError as error:
            return problem_response(error)

    return [
        Route("/docs", page, name="docs"),
        *(Route(f"/docs/{name}", asset) for name in _ASSETS),
        Route("/openapi.json", merged, name="openapi"),
    ]


def _place_of_the_data_listener(slot: PartsSlot, request: Request) -> str | None:
    """Where the page works better than here; `None` if here is fine."""
    parts = slot.get()
    came_through_it = "x-forwarded-for" in request.headers
    if came_through_it or not parts.settings.management_on_data_listener:
        return None
    query = f"?{request.url.query}" if request.url.query else ""
    host = request.url.hostname or ""
    named = f"[{host}]" if ":" in host else host
    scheme = parts.data_plane.urls[0].partition(":")[0]
    return f"{scheme}://{named}:{parts.data_plane.address[1]}/docs{query}"
