"""JSON Merge Patch (RFC 7396): what is to be different of a piece of JSON, written in its own shape. Pure.

    {"a": 1, "b": {"c": 2, "d": 3}}  with  {"a": null, "b": {"d": 4}}  is  {"b": {"c": 2, "d": 4}}

Lists are taken whole, and no patch can say `null`, since that takes away.
"""

from collections.abc import Mapping
from typing import Any, cast

MEDIA_TYPE = "application/merge-patch+json"


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with the patch applied (RFC 7396 §2); neither is changed."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(cast("Mapping[str, Any]", target)) if isinstance(target, Mapping) else {}
    for key, value in cast("Mapping[str, Any]", patch).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
