"""Resources as protobuf messages, for a server that sends them (extra `envoy`)."""

from collections.abc import Mapping
from typing import Any

from toska_common.envoy.resources import Resources
from toska_common.envoy.words import TYPES, Json


def as_messages(resources: Resources) -> dict[str, dict[str, Any]]:
    """Every resource by type URL and name.

    Raises:
        google.protobuf.json_format.ParseError: A resource is not of the API's form.
    """
    return {url: {name: message(url, one) for name, one in found.items()} for url, found in resources.by_type().items()}


def message(url: str, resource: Mapping[str, Any]) -> Any:
    """One resource of a type."""
    from google.protobuf.json_format import ParseDict

    from toska_common.envoy_api import message_class, pool

    made: Any = message_class(url.removeprefix(TYPES))()
    content: Json = dict(resource)
    return ParseDict(content, made, descriptor_pool=pool())
