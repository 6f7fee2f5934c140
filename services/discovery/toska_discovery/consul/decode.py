"""Registrations and reports, from their bodies to the domain's values.

What this registry cannot honour, such as a check of a kind that it does not run, is refused and never ignored: who
registers must be able to trust what was acknowledged.
"""

import re
from ipaddress import ip_address
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from toska_common.contracts.discovery import Health
from toska_common.contracts.names import RESERVED_PREFIX, Host
from toska_common.targets import TargetRules

from toska_discovery.check import CheckDefinition
from toska_discovery.consul.decode_checks import decode_checks
from toska_discovery.consul.gojson import (
    Struct,
    anything,
    boolean,
    decode_json,
    integer,
    mismatch,
    string,
    string_map,
    strings,
)
from toska_discovery.consul.request import Refusal
from toska_discovery.consul.rules import (
    CONTROL,
    ID_MAX,
    META_KEY_MAX,
    META_MAX,
    META_VALUE_MAX,
    NAME_MAX,
    TAG_MAX,
    TAGS_MAX,
    RegistrationRules,
    bound,
)
from toska_discovery.instance import ServiceDefinition

_META_KEY = re.compile(r"[A-Za-z0-9_-]+")
_HOST = TypeAdapter[str](Host)

_ADDRESS = Struct.of(Address=string, Port=integer)


def addresses(value: Any, field: str) -> dict[str, tuple[str, int]]:
    """An object of addresses with their ports."""
    if not isinstance(value, dict):
        raise mismatch(value, field, "map[string]structs.ServiceAddress")
    found: dict[str, tuple[str, int]] = {}
    for tag, part in cast("dict[str, Any]", value).items():
        address = _ADDRESS.decode(part)
        found[tag] = (address.get("Address", ""), address.get("Port", 0))
    return found


_WEIGHTS = Struct.of(Passing=integer, Warning=integer)

_SERVICE = Struct.of(
    Kind=string, ID=string, Name=string, Tags=strings, Address=string, TaggedAddresses=addresses, Meta=string_map,
    Port=integer, SocketPath=string, Check=anything, Checks=anything, Weights=anything, Token=string,
    EnableTagOverride=boolean, Proxy=anything, Connect=anything, Namespace=string, Partition=string, Locality=anything,
    Ports=anything,
)  # fmt: skip

_UPDATE = Struct.of(Status=string, Output=string)

_STATUSES = {status.value: status for status in Health}


def decode_registration(
    body: bytes, rules: RegistrationRules, *, trusted: bool
) -> tuple[ServiceDefinition, list[CheckDefinition]]:
    """Read the body of `agent/service/register`.

    Args:
        body: As it was sent.
        rules: What to make of it.
        trusted: Whether the caller is the mesh itself, whose services may have its management addresses.

    Raises:
        Refusal: What is wrong, in Consul's words where Consul has some.
    """
    fields = _SERVICE.decode(decode_json(body))
    name = fields.get("Name", "")
    if not name:
        raise Refusal(400, "Missing service name")
    service_id = fields.get("ID", "") or name
    bound("service name", name, NAME_MAX)
    bound("service ID", service_id, ID_MAX)
    for part in ("Kind", "SocketPath", "Proxy", "Connect", "Namespace", "Partition", "Locality", "Ports"):
        if fields.get(part) not in (None, "", {}, [], "default"):
            raise Refusal(400, f"Invalid service: {part} is not supported by this registry")
    targets = TargetRules() if trusted and name.startswith(RESERVED_PREFIX) else rules.targets
    tagged: dict[str, tuple[str, int]] = fields.get("TaggedAddresses", {})
    address, port = fields.get("Address", ""), fields.get("Port", 0)
    for host, host_port in ((address, port), *tagged.values()):
        check_address("service", host, host_port, targets)
    service = ServiceDefinition(
        id=service_id,
        name=name,
        address=address,
        port=port,
        tags=check_tags(fields.get("Tags", ())),
        meta=check_meta("Service", fields.get("Meta", {})),
        tagged_addresses={**_tagged_by_family(address, port), **tagged},
        weights=decode_weights(fields.get("Weights")),
        enable_tag_override=fields.get("EnableTagOverride", False),
    )
    return service, decode_checks(fields, service.id, service.name, rules)


def decode_update(body: bytes) -> tuple[Health, str]:
    """Read the body of `agent/check/update`.

    Raises:
        Refusal: What is wrong, in Consul's words.
    """
    fields = _UPDATE.decode(decode_json(body))
    status = fields.get("Status", "")
    if status not in _STATUSES:
        raise Refusal(400, f"Invalid check status: '{status}'")
    return _STATUSES[status], fields.get("Output", "")


def decode_weights(value: Any) -> tuple[int, int]:
    """Read `Weights`: for traffic while passing, and while warning.

    Raises:
        Refusal: In Consul's words.
    """
    if value is None:
        return 1, 1
    weights = _WEIGHTS.decode(value)
    passing, warning = weights.get("Passing", 0), weights.get("Warning", 0)
    if passing < 1:
        raise Refusal(400, "Invalid Weights: Passing must be greater than 0")
    if warning < 0:
        raise Refusal(400, "Invalid Weights: Warning must be greater or equal than 0")
    if max(passing, warning) > 65535:
        raise Refusal(400, "Invalid Weights: DNS Weight must be between 0 and 65535")
    return passing, warning


def check_address(what: str, address: str, port: int, targets: TargetRules) -> None:
    """Take a host name or an IP address that may be connected to, at a port that exists; or no address.

    Raises:
        Refusal: It is none, naming `what` it is of: a service, or a node.
    """
    if not 0 <= port <= 65535:
        raise Refusal(400, f"Invalid {what} port: {port} is not between 0 and 65535")
    if not address:
        return
    try:
        _HOST.validate_python(address)
    except ValidationError as error:
        raise Refusal(400, f"Invalid {what} address: '{address}' is not a host name or an IP address") from error
    try:
        ip = ip_address("127.0.0.1" if address == "localhost" else address)
    except ValueError:
        return  # a name; whoever connects checks what it resolves to
    if ip.is_unspecified:
        raise Refusal(400, f"Invalid {what} address")
    refusal = targets.refusal(str(ip), port)
    if refusal is not None:
        raise Refusal(400, f"Invalid {what} address: {refusal}")


def _tagged_by_family(address: str, port: int) -> dict[str, tuple[str, int]]:
    """The tagged addresses that Consul makes of an IP address."""
    try:
        family = f"ipv{ip_address(address).version}"
    except ValueError:
        return {}
    return {f"lan_{family}": (address, port), f"wan_{family}": (address, port)}


def check_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Take tags within bounds.

    Raises:
        Refusal: There are too many, or one is too long.
    """
    if len(tags) > TAGS_MAX:
        raise Refusal(400, f"Invalid service tags: cannot contain more than {TAGS_MAX} tags")
    for tag in tags:
        if len(tag) > TAG_MAX or CONTROL.search(tag):
            raise Refusal(
                400, f"Invalid service tags: a tag has at most {TAG_MAX} characters and no control characters"
            )
    return tags


def check_meta(what: str, meta: dict[str, str]) -> dict[str, str]:
    """Take metadata as Consul bounds it.

    Raises:
        Refusal: In Consul's words, naming `what` it is of: a Service, or a Node.
    """
    if len(meta) > META_MAX:
        raise Refusal(400, f"Invalid {what} Meta: Node metadata cannot contain more than {META_MAX} key/value pairs")
    for key, value in meta.items():
        reason = None
        if not key:
            reason = "Key cannot be blank"
        elif not _META_KEY.fullmatch(key):
            reason = "Key contains invalid characters"
        elif len(key) > META_KEY_MAX:
            reason = f"Key is too long (limit: {META_KEY_MAX} characters)"
        elif what == "Service" and key.lower().startswith("consul-"):
            reason = "Key prefix 'consul-' is reserved for internal use"
        elif len(value) > META_VALUE_MAX:
            reason = f"Value is too long (limit: {META_VALUE_MAX} characters)"
        if reason is not None:
            raise Refusal(400, f"Invalid {what} Meta: Couldn't load metadata pair ('{key}', '{value}'): {reason}")
    return meta
