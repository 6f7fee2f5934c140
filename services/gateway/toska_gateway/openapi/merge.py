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
    fragments: Iterable[Fragment], *, title: str, version: str, mesh: Collection[str]
) -> dict[str, Any]:
    """One document over all `fragments`, in their order.

    Args:
        fragments: Rewritten documents; those to be merged with others were rewritten `apart`.
        title: Of the document.
        version: Of the document.
        mesh: The services that are the mesh's own, whose changes need its token.
    """
    given = list(fragments)
    paths: dict[str, dict[str, Any]] = {}
    components: dict[str, dict[str, Any]] = {}
    tags: dict[str, dict[str, Any]] = {}
    for fragment in [_guarded(item) if item.service in mesh else item for item in given]:
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


def _guarded(fragment: Fragment) -> Fragment:
    """The mesh's token on the mesh's own operations: needed for changes, and for reads only off the machine."""
    paths: dict[str, dict[str, Any]] = {}
    for path, method, operation in fragment.operations():
        security: list[dict[str, Any]] = [{MESH_SCHEME: []}, *([{}] if method in _READS else [])]
        paths.setdefault(path, {})[method] = {**operation, "security": security}
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
