"""Bodies and conditions of requests that change a resource."""

import json
import re
from typing import Any, TypeVar

from fastapi import Request
from starlette.exceptions import HTTPException
from toska_common.contracts import Document
from toska_common.routing.document import load_resource

from toska_router.proposals import Precondition

D = TypeVar("D", bound=Document)

MAX_BODY_BYTES = 1024 * 1024

_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json")
_ENTITY_TAG = re.compile(r'"([\x21\x23-\x7e]*)"')


async def read_resource(request: Request, kind: type[D], **defaults: Any) -> D:
    """Read the body as one resource, in JSON or YAML (RFC 9512); `defaults` are keys that it may leave out.

    Raises:
        InvalidDocument: It is wrong; every problem is named.
        HTTPException: 413 if it is too large, 415 if it is neither JSON nor YAML.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    yaml = media_type in _YAML
    if not yaml and _JSON.fullmatch(media_type) is None:
        raise HTTPException(415, f"{media_type} is not read here; send application/json or application/yaml")
    body = await _read_body(request)
    return load_resource(kind, body, source="the body", yaml=yaml, defaults=defaults)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"a resource has at most {MAX_BODY_BYTES} bytes")
    return bytes(body)


def read_precondition(request: Request) -> Precondition:
    """The request's `If-Match` and `If-None-Match: *` (RFC 9110 §13.1); a weak tag never matches."""
    absent = request.headers.get("if-none-match", "").strip() == "*"
    given = request.headers.get("if-match")
    if given is None:
        return Precondition(absent=absent)
    strong = [tag.strip() for tag in given.split(",") if not tag.strip().startswith("W/")]
    tags = [match[1] for tag in strong if (match := _ENTITY_TAG.fullmatch(tag))]
    return Precondition(versions=frozenset({*tags, *(["*"] if given.strip() == "*" else [])}), absent=absent)


def entity_tag(version: str) -> str:
    """A version as an `ETag`."""
    return f'"{version}"'


def to_json(content: Any) -> bytes:
    """Encode an answer; what operators wrote is given back in its own characters."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
