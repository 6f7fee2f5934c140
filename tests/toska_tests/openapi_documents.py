"""OpenAPI documents of a few lines, merged, and what has to be true of every merged one."""

import json
from collections.abc import Iterator
from typing import Any

from fastapi.openapi.models import OpenAPI
from toska_gateway.openapi.merge import merge_fragments
from toska_gateway.openapi.parts import as_list, as_mapping
from toska_gateway.openapi.pointers import References
from toska_gateway.openapi.rewrite import rewrite_document

Json = dict[str, Any]


def document(paths: Json, *, version: str = "3.1.0", extra: Json | None = None, **rest: Any) -> Json:
    info = {"title": "Shop", "version": "1.0"}
    return {"openapi": version, "info": info, "paths": paths, **rest, **(extra or {})}


def answer(schema: Json) -> Json:
    return {"responses": {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}}


def merge(*given: tuple[str, Json], mesh: tuple[str, ...] = (), open_reads: bool = True) -> Json:
    fragments = [rewrite_document(name, root, lambda _, path, name=name: f"/{name}{path}") for name, root in given]
    merged = merge_fragments(fragments, title="Mesh", version="1", mesh=mesh, open_reads=open_reads)
    return json.loads(json.dumps(merged, allow_nan=False))


def references(node: Any, *, named: bool = False) -> Iterator[str]:
    """Every `$ref`, mapping target and `operationRef`, outside of data; `named`: the keys are names, not keywords."""
    for item in as_list(node):
        yield from references(item)
    for key, value in as_mapping(node).items():
        if not named and key in {"example", "examples", "default", "enum", "const", "x-data"}:
            continue
        if key in {"$ref", "operationRef"} and isinstance(value, str):
            yield value
        elif key == "mapping" and not named:
            yield from as_mapping(value).values()
        else:
            yield from references(value, named=not named and key in {"properties", "patternProperties", "$defs"})


def assert_sound(merged: Json) -> None:
    """Every reference leads somewhere inside, ids are unique, and FastAPI's model of OpenAPI takes it."""
    lookup = References(merged)
    for reference in references(merged):
        pointer = lookup.pointer(reference, "")
        assert pointer is not None, reference
        assert lookup.target(pointer) is not None, reference
    ids = [op["operationId"] for item in merged["paths"].values() for op in item.values() if "operationId" in op]
    assert len(ids) == len(set(ids))
    OpenAPI.model_validate(merged)
