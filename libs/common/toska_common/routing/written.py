"""Resources as people write them: what is as by default is left out, and what is left can be sent back."""

from typing import Any

from toska_common.contracts import Document
from toska_common.contracts.routing import Policies, Route
from toska_common.routing.versions import content_version


def written(resource: Document) -> dict[str, Any]:
    """The resource in JSON, as short as it can be said.

    Policies that are merged with others keep every key that was written, since one with its default takes away what
    another policy has (`merging`).
    """
    content = resource.model_dump(mode="json", exclude_defaults=True)
    if isinstance(resource, Route):
        if resource.policies_from and resource.policies.model_fields_set:
            content["policies"] = _every_key(resource.policies)
    elif isinstance(resource, Policies):
        return _every_key(resource)
    return content


def written_version(resource: Document) -> str:
    """The version of what is written: an `ETag`'s."""
    return content_version(written(resource))


def _every_key(policies: Policies) -> dict[str, Any]:
    short = policies.model_dump(mode="json", exclude_defaults=True)
    whole = policies.model_dump(mode="json", include=policies.model_fields_set)
    return {key: short.get(key, value) for key, value in whole.items()}
