"""Resources as protobuf messages, for a server that sends them (extra `envoy`)."""

from collections.abc import Mapping
from typing import Any

from toska_common.envoy.encoding import encode
from toska_common.envoy.resources import Resources
from toska_common.envoy.words import TYPES


def as_messages(resources: Resources) -> dict[str, dict[str, Any]]:
    """Every resource by type URL and name.

    Raises:
        NotOfTheApi: A resource is not of the API's form.
    """
    return {url: {name: message(url, one) for name, one in found.items()} for url, found in resources.by_type().items()}


def message(url: str, resource: Mapping[str, Any]) -> Any:
    """One resource of a type.

    Raises:
        NotOfTheApi: It is not of the API's form.
    """
    from toska_common.envoy_api import message_class

    kind: Any = message_class(url.removeprefix(TYPES))
    return kind.FromString(encode(url, resource))
