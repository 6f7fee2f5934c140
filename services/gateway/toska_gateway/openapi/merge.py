"""Fragments of many services in one OpenAPI 3.1 document, with the mesh's own security scheme where it belongs."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, Final

from toska_gateway.openapi.rewrite import Fragment

MESH_SCHEME: Final = "MeshToken"
"""No name from a service can be this one: those begin with the service's name, which is lower-case, and a dot."""

_READS: Final = frozenset({"get", "head", "options"})
_SCHEME: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": (
        "The mesh's admin token, from `admin.token` in its home. It is sent to the mesh's own operations only, "
        "and forgotten when the page is left."
    ),
}


def merge_fragments(
    fragments: Iterable[Fragment], *, title: str, version: str, mesh: Collection[str], open_reads: bool = True
) -> dict[str, Any]:
    """One document over all `fragments`, in their order.

    Args:
        fragments: Rewritten documents; those to be merged with others were rewritten `apart`.
        title: Of the document.
        version: Of the document.
        mesh: The services that are the mesh's own, whose changes need its token.
        open_reads: Whether reading from them needs none.
    """
    given = list(fragments)
    paths: dict[str, dict[str, Any]] = {}
    components: dict[str, dict[str, Any]] = {}
    tags: dict[str, dict[str, Any]] = {}
    free = _READS if open_reads else frozenset[str]()
    for fragment in [_guarded(item, free) if item.service in mesh else item for item in given]:
        for path, method, operation in fragment.operations():
            paths.setdefault(path, {}).setdefault(method, operation)
        for section, named in fragment.components.items():
            components.setdefault(section, {}).update(named)
        tags.update((tag["name"], tag) for tag in fragment.tags if tag["name"] not in tags)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": _describe(given)},
        "servers": [{"url": "/", "description": "This gateway"}],
        "tags": list(tags.values()),
        "paths": paths,
        "components": components,
    }


def _guarded(fragment: Fragment, free: frozenset[str]) -> Fragment:
    """The mesh's token on the mesh's own operations, except for methods that are free."""
    paths: dict[str, dict[str, Any]] = {}
    for path, method, operation in fragment.operations():
        plain = {key: value for key, value in operation.items() if key != "security"}
        guard: dict[str, Any] = {} if method in free else {"security": [{MESH_SCHEME: []}]}
        paths.setdefault(path, {})[method] = {**plain, **guard}
    components = {**fragment.components, "securitySchemes": {MESH_SCHEME: _SCHEME} if paths else {}}
    return replace(fragment, paths=paths, components=components)


def _describe(fragments: list[Fragment]) -> str:
    if len(fragments) == 1:
        return fragments[0].description
    lines = [
        f"- **{fragment.service}**" + (f" {fragment.version}" if fragment.version else "") + f": {fragment.title}"
        for fragment in fragments
    ]
    return "\n".join(["Every operation that can be reached through this gateway, by service.", "", *lines])
