"""Bodies and conditions of requests that change a resource."""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar, cast

from anyio.to_thread import run_sync
from fastapi import Request
from starlette.exceptions import HTTPException
from toska_common.contracts import Document
from toska_common.merge_patch import MEDIA_TYPE as MERGE_PATCH
from toska_common.routing.document import InvalidDocument, Problem, load_resource
from toska_common.routing.tree import decode, parse_json

from toska_router.proposals import Precondition

D = TypeVar("D", bound=Document)

MAX_BODY_BYTES = 1024 * 1024
_READ_AT_ONCE = 16 * 1024

_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json")
_ENTITY_TAG = re.compile(r'"([\x21\x23-\x7e]*)"')


async def read_resource(request: Request, kind: type[D], **defaults: Any) -> D:
    """Read the body as one resource, in JSON or YAML (RFC 9512); `defaults` are keys that it may leave out.

    Raises:
        InvalidDocument: It is wrong; every problem is named.
        HTTPException: 413 if it is too large, 415 if it is neither JSON nor YAML.
    """
    yaml = is_yaml(request)
    body = await read_body(request)
    read = partial(load_resource, kind, body, source="the body", yaml=yaml, defaults=defaults)
    # A megabyte of YAML takes seconds, in which gateways would wait for their snapshots.
    return read() if len(body) <= _READ_AT_ONCE else await run_sync(read)


async def read_patch(request: Request) -> Mapping[str, Any]:
    """Read the body as a JSON Merge Patch (RFC 7396) of a resource.

    Raises:
        InvalidDocument: It is no JSON, or patches nothing that has keys.
        HTTPException: 413 if it is too large, 415 if it says that it is something else.
    """
    media_type = _media_type(request)
    if media_type != MERGE_PATCH:
        raise HTTPException(415, f"a patch is {MERGE_PATCH}, not {media_type}", headers={"accept-patch": MERGE_PATCH})
    tree = parse_json(decode(await read_body(request), "the patch"), "the patch")
    patch = tree.root.plain()
    if not isinstance(patch, Mapping):
        raise InvalidDocument([Problem("", None, "a mapping of keys to values is expected")], source="the patch")
    return cast("Mapping[str, Any]", patch)


def is_yaml(request: Request) -> bool:
    """Whether the body is YAML; it is JSON otherwise.

    Raises:
        HTTPException: 415 if it is neither.
    """
    media_type = _media_type(request)
    if media_type not in _YAML and _JSON.fullmatch(media_type) is None:
        raise HTTPException(415, f"{media_type} is not read here; send application/json or application/yaml")
    return media_type in _YAML


async def read_body(request: Request, at_most: int = MAX_BODY_BYTES) -> bytes:
    """The body, whole.

    Raises:
        HTTPException: 413 if it is larger.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > at_most:
            raise HTTPException(413, f"a body has at most {at_most} bytes here")
    return bytes(body)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()


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
