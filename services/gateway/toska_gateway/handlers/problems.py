"""`/problems`: what each type of problem document means, as a page for people and as JSON for programs."""

import re
from html import escape

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from toska_common.contracts.gateway import ProblemType
from toska_common.errors import NotFound

from toska_gateway.handlers.docs import html_response, read_static
from toska_gateway.problem_types import PROBLEM_TYPES, find_problem_type

_WHOSE = {"caller": "the caller", "upstream": "the service behind the gateway", "mesh": "the mesh"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title} · Toska Mesh</title>
  <style>{style}</style>
</head>
<body>
<header><nav><a href="/problems">Toska Mesh · Problems</a></nav></header>
<main>
{body}
</main>
</body>
</html>
"""


def problem_routes() -> APIRouter:
    """The handlers."""
    router = APIRouter(tags=["problems"])

    @router.get("/problems", response_model=list[ProblemType])
    async def list_problem_types(request: Request) -> Response:
        """Every type of problem document that the mesh answers with."""
        types = sorted(PROBLEM_TYPES.values(), key=lambda item: (item.status, item.code))
        if _wants_page(request):
            return html_response(_page("Problems", _list(types)))
        return JSONResponse([item.model_dump() for item in types], headers={"vary": "accept"})

    @router.get("/problems/{code}", response_model=ProblemType)
    async def get_problem_type(code: str, request: Request) -> Response:
        """What one type means, and what to do about it."""
        found = find_problem_type(code) if re.fullmatch(r"[a-z0-9-]{1,64}", code) else None
        if found is None:
            raise NotFound("there is no problem type of this code; /problems lists all")
        if _wants_page(request):
            return html_response(_page(found.title, _details(found)))
        return JSONResponse(found.model_dump(), headers={"vary": "accept"})

    return router


def _wants_page(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "text/html" in accept


def _page(title: str, body: str) -> str:
    return _PAGE.format(title=escape(title), style=read_static("page.css").decode(), body=body)


def _list(types: list[ProblemType]) -> str:
    items = "\n".join(
        f'<li><span class="status">{item.status}</span> <a href="/problems/{item.code}">{escape(item.title)}</a> '
        f"<code>{item.code}</code></li>"
        for item in types
    )
    return (
        "<h1>Problems</h1>\n"
        "<p>Every error answer of the mesh is a problem document (RFC 9457) of one of these types.</p>\n"
        f'<ul class="problems">\n{items}\n</ul>'
    )


def _details(item: ProblemType) -> str:
    fault = f'<span class="fault {item.fault}">fault of {_WHOSE[item.fault]}</span>'
    return f"""<h1>{escape(item.title)}</h1>
<p><code>{item.code}</code> · status {item.status} · {fault}</p>
<h2>What it means</h2>
<p>{escape(item.meaning)}</p>
<h2>What to do</h2>
<p>{escape(item.remedy)}</p>"""
