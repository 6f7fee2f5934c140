"""Names and addresses as every service checks them."""

import re
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?")

_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

RESERVED_PREFIX = "toska-"
RESERVED_NAMES = frozenset({"api", "docs", "dashboard", "openapi.json", "health", "metrics", "problems"})
"""First path segments of the data listener that no automatic route may take."""


def _host(value: str) -> str:
    if _HOST.fullmatch(value) is None:
        raise ValueError("not a host name or an IP address")
    if (":" in value or _NUMBER.fullmatch(value.rstrip(".").rpartition(".")[2])) and not _is_ip(value):
        # Resolvers take 2852039166, 0xa9fea9fe and 169.254.43518 for 169.254.169.254.
        raise ValueError("not an IP address, and a host name does not end in a number")
    return value


def _is_ip(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


ServiceName = Annotated[str, StringConstraints(pattern=rf"^{_NAME}$", max_length=63)]
"""A service's name: a DNS label of lower-case letters, digits and hyphens, at most 63 characters."""

ResourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$")]
"""Name of a route, cluster or other resource, at most 128 characters."""

Host = Annotated[str, AfterValidator(_host)]
"""A host name or a literal IP address."""


def _endpoint_address(value: str) -> str:
    if not is_unix(value):
        return _host(value)
    path = value.removeprefix(UNIX_PREFIX)
    if not path.startswith("/") or "\x00" in path:
        raise ValueError("write a Unix socket as unix:/absolute/path")
    if len(path.encode()) > MAX_UNIX_PATH:
        raise ValueError(f"the path of a Unix socket has at most {MAX_UNIX_PATH} bytes")
    return value


UNIX_PREFIX = "unix:"
MAX_UNIX_PATH = 103
"""What macOS takes (Linux takes 107), so that what works on one works on the other."""

EndpointAddress = Annotated[str, AfterValidator(_endpoint_address)]
"""Like `Host`, or `unix:/path`."""


def is_unix(address: str) -> bool:
    """Whether an address is that of a Unix socket."""
    return address.startswith(UNIX_PREFIX)


def is_reserved(name: str) -> bool:
    """Whether a service of this name can have no automatic route."""
    return name in RESERVED_NAMES or name.startswith(RESERVED_PREFIX)
