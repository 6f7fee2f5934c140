"""`/docs`: Swagger UI from assets inside the installation, so that it works without a network.

FastAPI's own page loads its scripts from a public server; apps that use this one are made with `openapi_url=None`.
"""

import gc
import json
import threading
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources

import anyio
from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

OPENAPI_URL = "/openapi.json"
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}

# FastAPI silences warnings of pydantic's while it describes, by a setting of the whole process: of two that describe at
# once, the first to end takes the other's silence away.
_describing = threading.Lock()

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title}</title>
  <link rel="icon" type="image/png" href="{base}/docs/favicon-32x32.png">
  <link rel="stylesheet" href="{base}/docs/swagger-ui.css">
</head>
<body>
  <main id="swagger-ui"></main>
  <script src="{base}/docs/swagger-ui-bundle.js"></script>
  <script>
    SwaggerUIBundle({options});
  </script>
</body>
</html>
"""


@cache
def read_asset(name: str) -> bytes:
    """One of the `ASSETS`; kept, since each is read by every visitor."""
    return (resources.files("fastapi_swagger") / "resources" / name).read_bytes()


def swagger_page(title: str, *, base: str = "", openapi_url: str = OPENAPI_URL, **options: object) -> str:
    """The page that shows `openapi_url`.

    Args:
        title: Of the page.
        base: The prefix that the app is served under, such as `/orders`.
        openapi_url: Of the document, below `base`.
        options: Further parameters of Swagger UI, such as `urls` (https://swagger.io/docs/open-source-tools/swagger-ui/).
    """
    settings = {
        "url": f"{base}{openapi_url}",
        "dom_id": "#swagger-ui",
        "deepLinking": True,
        "displayRequestDuration": True,
        "tryItOutEnabled": True,
        "persistAuthorization": False,  # a mesh token must not outlive the page
        **options,
    }
    return _PAGE.format(title=_escape(title), base=_escape(base), options=_script_json(settings))


def docs_routes(title: str, *, openapi_url: str = OPENAPI_URL, **options: object) -> list[Route]:
    """`/docs` and its assets."""

    async def page(request: Request) -> Response:
        base = str(request.scope.get("root_path", "")).rstrip("/")
        return HTMLResponse(swagger_page(title, base=base, openapi_url=openapi_url, **options))

    async def asset(request: Request) -> Response:
        name = request.url.path.rsplit("/", 1)[-1]
        headers = {"content-type": ASSETS[name], "cache-control": "public, max-age=86400"}
        return Response(read_asset(name), headers=headers)

    return [Route("/docs", page, name="docs"), *(Route(f"/docs/{name}", asset) for name in ASSETS)]


def add_docs(app: FastAPI, **options: object) -> None:
    """Give `app`, made with `openapi_url=None`, its `/openapi.json` and `/docs`."""
    app.router.routes[:0] = [
        Route(OPENAPI_URL, _describe(app)),
        *docs_routes(app.title, openapi_url=OPENAPI_URL, **options),
    ]


def _describe(app: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    described: list[bytes] = []
    describing = anyio.Lock()

    def describe() -> bytes:
        with _describing:
            text = json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()
        # What it was made of is ten times as large, full of cycles, and of no use any more.
        app.openapi_schema = None
        gc.collect()
        return text

    async def document(_: Request) -> Response:
        async with describing:
            if not described:
                # Half a second of a processor for many operations, in which the services beside this one go on.
                described.append(await run_sync(describe))
        return Response(described[0], media_type="application/json")

    return document


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _script_json(value: object) -> str:
    # "</script>" inside a string would end the script.
    return json.dumps(value).replace("<", "\\u003c")
