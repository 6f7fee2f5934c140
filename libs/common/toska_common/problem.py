"""RFC 9457 problem details: one rendering for our errors and for the framework's own.

`install(app)` gives a FastAPI app the handlers; `problem_response` and `send_problem` are for code outside of it.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from toska_common.errors import InvalidInput, MeshError
from toska_common.trace import current_trace_id

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_FRAMEWORK_CODES = {404: "not-found", 405: "method-not-allowed", 415: "unsupported-media-type"}


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
    title = HTTPStatus(error.status_code).phrase
    code = _FRAMEWORK_CODES.get(error.status_code, title.lower().replace(" ", "-"))
    body = problem_body(error.status_code, code, title, str(error.detail))
    return ProblemResponse(json.dumps(body), error.status_code, headers=dict(error.headers or {}))


async def _on_unforeseen(_: Request, error: Exception) -> Response:
    # The exception's text may hold anything, so it goes to the log and not to the caller.
    log.error("request_crashed", exc_info=error)
    body = problem_body(500, "internal-error", "Internal error", "The service met an error that it did not foresee")
    return ProblemResponse(json.dumps(body), 500)


def install(app: FastAPI) -> None:
    """Answer every error of `app`, the framework's 404, 405 and 422 included, as a problem document."""
    app.add_exception_handler(MeshError, _on_mesh_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unforeseen)
