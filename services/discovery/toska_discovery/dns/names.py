"""What a name asks for, in Consul's words.

[TAG.]NAME.service[.DC].consul            instances of a service; a tag may have dots
_NAME._tcp[.TAG].service[.DC].consul      the same as RFC 2782 writes it; _NAME._TAG too
NODE.node[.DC].consul                     a node, whose name may have dots
HEX.addr[.DC].consul                      an address that is in the name itself
NAME.query[.DC].consul                    a prepared query
consul                                    the zone
….in-addr.arpa, ….ip6.arpa                who has an address
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

Labels: TypeAlias = tuple[bytes, ...]

_KINDS = frozenset({b"service", b"node", b"addr", b"query"})
_ARPA = b"arpa"


@dataclass(frozen=True, slots=True)
class ServiceName:
    """Instances of a service, in lower case, that have a tag if it is not empty."""

    service: str
    tag: str


@dataclass(frozen=True, slots=True)
class NodeName:
    """A node, in lower case."""

    node: str


@dataclass(frozen=True, slots=True)
class AddressName:
    """An address."""

    address: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class QueryName:
    """A prepared query."""

    query: str


@dataclass(frozen=True, slots=True)
class ReverseName:
    """Whoever has an address."""

    address: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class ZoneName:
    """The zone itself, or a name in it that only stands above others."""

    apex: bool


@dataclass(frozen=True, slots=True)
class UnknownName:
    """A name of the zone that there is not."""


@dataclass(frozen=True, slots=True)
class ForeignName:
    """A name that is others' business."""


Name: TypeAlias = ServiceName | NodeName | AddressName | QueryName | ReverseName | ZoneName | UnknownName | ForeignName


def read_name(labels: Labels, domain: Labels, datacenter: str) -> Name:
    """What `labels`, in lower case, ask of the registry for `domain` in `datacenter`."""
    if labels[-len(domain) :] != domain:
        address = _reverse_address(labels) if labels[-1:] == (_ARPA,) else None
        return ForeignName() if address is None else ReverseName(address)
    inner = labels[: -len(domain)]
    if not inner:
        return ZoneName(apex=True)
    if inner[-1] == datacenter.encode().lower():
        inner = inner[:-1]
    if not inner:
        return ZoneName(apex=False)
    return _read_kind(inner[-1], inner[:-1])


def _read_kind(kind: bytes, parts: Labels) -> Name:
    if kind not in _KINDS:
        return UnknownName()
    if not parts:
        return ZoneName(apex=False)
    try:
        texts = [part.decode() for part in parts]
    except UnicodeDecodeError:
        return UnknownName()
    match kind:
        case b"service":
            return _service_name(texts)
        case b"node":
            return NodeName(".".join(texts))
        case b"query":
            return QueryName(".".join(texts))
        case _:
            address = _address_in(texts)
            return UnknownName() if address is None else AddressName(address)


def _service_name(parts: list[str]) -> ServiceName:
    if len(parts) in {2, 3} and parts[0].startswith("_") and parts[1].startswith("_"):
        if len(parts) == 3:
            return ServiceName(parts[0][1:], parts[2])
        return ServiceName(parts[0][1:], "" if parts[1] == "_tcp" else parts[1][1:])
    return ServiceName(parts[-1], ".".join(parts[:-1]))


def _address_in(parts: list[str]) -> IPv4Address | IPv6Address | None:
    if len(parts) != 1 or len(parts[0]) not in {8, 32}:
        return None
    try:
        packed = bytes.fromhex(parts[0])
    except ValueError:
        return None
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed) if len(packed) == 16 else None


def _reverse_address(labels: Labels) -> IPv4Address | IPv6Address | None:
    parts = [label.decode("latin-1") for label in reversed(labels[:-2])]
    try:
        if labels[-2:-1] == (b"in-addr",) and len(parts) == 4:
            return IPv4Address(".".join(parts))
        if labels[-2:-1] == (b"ip6",) and len(parts) == 32 and all(len(part) == 1 for part in parts):
            return IPv6Address(bytes.fromhex("".join(parts)))
    except ValueError:
        return None
    return None
