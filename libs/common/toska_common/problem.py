"""RFC 9457 problem details: one rendering for our errors and for the framework's own.

`install(app)` gives a FastAPI app the handlers, `install_beside(app)` leaves those that are there; `problem_response`
and `send_problem` are for code outside of an app.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from toska_common.errors import InvalidInput, MeshError
from toska_common.trace import current_trace_id

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_FRAMEWORK_CODES = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large", 415: "unsupported-media-type"}


class ProblemResponse(Response):
    """A problem document; its status is the document's."""

    media_type = MEDIA_TYPE


def problem_body(
    status: int, code: str, title: str, detail: str, extensions: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Build the members of a problem document; extensions never shadow the standard ones."""
    standard = {
        "type": f"/problems/{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "trace_id": current_trace_id(),
    }
    return {**(extensions or {}), **standard}


def problem_response(error: MeshError) -> ProblemResponse:
    """Render one of our errors."""
    body = problem_body(error.status, error.code, error.title, error.detail, error.extensions)
    return ProblemResponse(json.dumps(body, default=str), error.status, headers=error.headers)


async def send_problem(error: MeshError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer an ASGI request with an error, from middleware that stands before any framework."""
    await problem_response(error)(scope, receive, send)


def field_problems(errors: Sequence[Any], *, skip: int = 0) -> list[dict[str, str]]:
    """Turn pydantic's error list into `{"field", "reason"}` pairs.

    The rejected input is left out on purpose: it may be a secret. `skip` drops leading parts of the location.
    """
    return [
        {"field": ".".join(str(part) for part in error["loc"][skip:]) or "(root)", "reason": str(error["msg"])}
        for error in errors
    ]


async def _on_mesh_error(_: Request, error: Exception) -> Response:
    error = cast("MeshError", error)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request_failed", code=error.code, detail=error.detail, fault=error.fault)
    return problem_response(error)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    errors = cast("RequestValidationError", error).errors()
    problems = field_problems(errors)
    if any(entry["type"] == "json_invalid" for entry in errors):
        body = problem_body(400, "malformed-json", "Malformed JSON", problems[0]["reason"], {"problems": problems})
        return ProblemResponse(json.dumps(body), 400)
    detail = "; ".join(f"{problem['field']}: {problem['reason']}" for problem in problems)
    return problem_response(InvalidInput(detail, problems=problems))


async def _on_http_exception(_: Request, error: Exception) -> Response:
    error = cast("HTTPException", error)
    title = _title(error.status_code)
    code = _FRAMEWORK_CODES.get(error.status_code, title.lower().replace(" ", "-"))
    detail: Any = error.detail  # FastAPI lets it be any JSON; RFC 9457 wants text there
    extensions = {} if isinstance(detail, str) else {"errors": detail}
    body = problem_body(error.status_code, code, title, title if extensions else detail, extensions)
    return ProblemResponse(json.dumps(body, default=str), error.status_code, headers=dict(error.headers or {}))


async def _on_unforeseen(_: Request, __: Exception) -> Response:
    # The exception's text may hold anything, so it is not for the caller; the server logs it, with its traceback.
    body = problem_body(500, "internal-error", "Internal error", "The service met an error that it did not foresee")
    return ProblemResponse(json.dumps(body), 500)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


_HANDLERS = {
    MeshError: _on_mesh_error,
    RequestValidationError: _on_validation_error,
    HTTPException: _on_http_exception,
    Exception: _on_unforeseen,
}


def install(app: FastAPI) -> None:
    """Answer every error of `app`, the framework's 404, 405 and 422 included, as a problem document."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


def install_beside(app: FastAPI) -> None:
    """The same, but wherever somebody has set a handler of their own, that one stays."""
    for kind, handler in _HANDLERS.items():
        present = app.exception_handlers.get(kind)
        if kind is Exception and 500 in app.exception_handlers:  # the same place by its other name
            continue
        if present is None or present in {http_exception_handler, request_validation_exception_handler}:
            app.add_exception_handler(kind, handler)
