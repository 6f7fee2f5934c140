"""Lists as people write them in an environment: words between commas.

    hosts: Annotated[tuple[str, ...], NoDecode, CommaSeparated]

Without `NoDecode` pydantic-settings would ask for JSON.
"""

from ipaddress import ip_network
from typing import Any

from pydantic import AfterValidator, BeforeValidator


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        ip_network(network)  # says by itself what is wrong
    return value


CommaSeparated = BeforeValidator(_split)
AreNetworks = AfterValidator(_check_networks)
