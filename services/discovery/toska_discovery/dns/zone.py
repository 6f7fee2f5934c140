"""The records that answer a name, from the registry's lists.

An answer is made of groups, each of one instance or one address: what goes into the answer section, and what helps
with it. The server shuffles them and leaves out whole ones where they do not fit.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from toska_common.contracts.discovery import Health

from toska_discovery.dns.names import (
    AddressName,
    ForeignName,
    Name,
    NodeName,
    QueryName,
    ReverseName,
    ServiceName,
    UnknownName,
    ZoneName,
    read_name,
)
from toska_discovery.dns.policy import DnsPolicy
from toska_discovery.dns.reverse import Reverse
from toska_discovery.dns.wire import (
    MAX_TTL_S,
    QUESTION_POINTER,
    Rcode,
    Type,
    address_type,
    encode_labels,
    encode_name,
    record,
    text_rdata,
)
from toska_discovery.instance import Instance
from toska_discovery.listing import Listing
from toska_discovery.node import OWN_NODE, NodeDefinition

CONSUL = "consul"
_MAX_ALIASES = 3
"""How many names in a row may lead to one another."""
_MAX_BEHIND = 5
"""How many addresses of an alias are told with it."""
_PLAIN_META = "rfc1035-"
"""Metadata under such a name is told by its value alone, as in Consul."""

FindQuery = Callable[[str], "Found | None"]
IndexNow = Callable[[], int]
Address: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Group:
    """Records that belong together, so that they are told together or not at all.

    Attributes:
        answers: Of the answer section, `count` of them.
        target: Where in `answers` the name stands, to its end, that the `extras` are about; they are without owner.
        meta: Whole records about the node; those that several groups have are told once.
    """

    answers: bytes
    count: int = 1
    target: int = 0
    extras: tuple[bytes, ...] = ()
    meta: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known about a name.

    Attributes:
        groups: To be told in any order; none says that there are no records of the type.
        one_only: Whether one of the groups is all there may be: a name has one alias.
        in_order: Whether the groups are told in their order.
        authority: Whole records of that section.
        extras: Whole records of the additional section.
        index: When that was known; out of date once `index_now` is another. Without, it is not to be kept.
    """

    rcode: Rcode
    groups: tuple[Group, ...] = ()
    one_only: bool = False
    in_order: bool = False
    authority: tuple[bytes, ...] = ()
    extras: tuple[bytes, ...] = ()
    index: int = 0
    index_now: IndexNow | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a prepared query finds.

    Attributes:
        ttl_s: Life of the answer; 0 leaves it to the service's.
        in_order: Whether the first are to be told first.
    """

    service: str
    instances: Sequence[Instance]
    ttl_s: int = 0
    in_order: bool = False


class Zone:
    """The registry's lists as a zone of DNS.

    Args:
        port: Of the registry's own service.
        serial: The zone's serial number now.
        find_query: What a prepared query finds, if there is one of the name.
    """

    def __init__(
        self,
        listing: Listing,
        policy: DnsPolicy,
        datacenter: str,
        *,
        port: int,
        serial: Callable[[], int],
        find_query: FindQuery = lambda _: None,
    ) -> None:
        self._listing = listing
        self._policy = policy
        self._datacenter = datacenter
        self._port = port
        self._serial = serial
        self._find_query = find_query
        self._domain = tuple(label.encode() for label in policy.domain.lower().split("."))
        self._apex = encode_labels(self._domain)
        self._reverse = Reverse(listing)
        self._folded: tuple[int, dict[str, str]] = (-1, {})

    def read_name(self, labels: tuple[bytes, ...]) -> Name:
        """What `labels`, in lower case, ask for."""
        return read_name(labels, self._domain, self._datacenter)

    def answer(self, name: Name, rdtype: int) -> Answer:
        """What is known about `name` for the type that is asked for."""
        if rdtype in {Type.SOA, Type.NS} and not isinstance(name, ReverseName | ForeignName):
            return self._about_the_zone(rdtype)
        match name:
            case ServiceName(service, tag):
                return self._service(service, tag, rdtype)
            case NodeName(node):
                return self._node(node, rdtype)
            case AddressName(address):
                return self._address(address, rdtype)
            case QueryName(query):
                return self._query(query, rdtype)
            case ReverseName(address):
                return self._reversed(address, rdtype)
            case ZoneName():
                return self._nothing(Rcode.NOERROR)
            case UnknownName():
                return self._nothing(Rcode.NXDOMAIN)
            case ForeignName():
                return Answer(Rcode.REFUSED)

    def _nothing(self, rcode: Rcode) -> Answer:
        """There is no such name, or nothing of the type: for how long that holds stands in the zone's own record."""
        return Answer(rcode, authority=(self._soa(),))

    def _soa(self) -> bytes:
        numbers = struct.pack("!IIIII", self._serial() & 0xFFFFFFFF, 3600, 600, 86400, 0)
        rdata = b"\x02ns" + self._apex + b"\x0ahostmaster" + self._apex + numbers
        return record(self._apex, Type.SOA, 0, rdata)

    def _about_the_zone(self, rdtype: int) -> Answer:
        """Consul tells that of the zone for every name in it."""
        own = self._listing.nodes[OWN_NODE].definition
        server = self._node_name(own)
        served = record(self._apex, Type.NS, 0, server)
        address = _parse(own.address)
        extras = () if address is None else (server + _address_tail(address, 0),)
        if rdtype == Type.NS:
            return Answer(Rcode.NOERROR, (Group(served),), extras=extras)
        return Answer(Rcode.NOERROR, (Group(self._soa()),), authority=(served,), extras=extras)

    # Services.

    def _service(self, service: str, tag: str, rdtype: int) -> Answer:
        name = self._spelled(service)
        if name == CONSUL and name not in self._listing.services:
            return self._own_service(tag, rdtype)
        instances = self._healthy(self._listing.services.get(name, {}).values(), tag)
        return self._instances(name, instances, rdtype, self._policy.ttl_of_service(service))

    def _own_service(self, tag: str, rdtype: int) -> Answer:
        own = self._listing.nodes[OWN_NODE].definition
        if tag:
            return self._nothing(Rcode.NXDOMAIN)
        if rdtype != Type.SRV:
            return self._of_host(own.address, rdtype, self._policy.ttl_of_service(CONSUL), lambda: self._listing.index)
        group = self._srv_group(own, "", self._port, 1, self._policy.ttl_of_service(CONSUL))
        return self._kept((group,), lambda: self._listing.index)

    def _query(self, query: str, rdtype: int) -> Answer:
        found = self._find_query(query)
        if found is None:
            return self._nothing(Rcode.NXDOMAIN)
        ttl_s = found.ttl_s or self._policy.ttl_of_service(found.service)
        answer = self._instances(found.service, list(found.instances), rdtype, ttl_s)
        return replace(answer, in_order=found.in_order, index_now=None)  # the index of a service knows no queries

    def _spelled(self, service: str) -> str:
        """The name as it is registered; names in DNS have no case."""
        services = self._listing.services
        if service in services:
            return service
        index = self._listing.services_index
        if self._folded[0] != index:
            self._folded = index, {name.lower(): name for name in services if name != name.lower()}
        return self._folded[1].get(service, service)

    def _healthy(self, instances: Iterable[Instance], tag: str) -> list[Instance]:
        unfit = {Health.CRITICAL, Health.WARNING} if self._policy.only_passing else {Health.CRITICAL}
        return [
            instance
            for instance in instances
            if (not tag or any(tag == own.lower() for own in instance.service.tags))
            and self._listing.health_of(instance) not in unfit
        ]

    def _instances(self, name: str, instances: Sequence[Instance], rdtype: int, ttl_s: int) -> Answer:
        if not instances:
            return self._nothing(Rcode.NXDOMAIN)
        hosts = [(instance, self._listing.nodes[instance.node].definition) for instance in instances]
        if rdtype == Type.SRV:
            groups = {
                (node.name, instance.service.address, instance.service.port): self._srv_group(
                    node, instance.service.address, instance.service.port, self._weight(instance), ttl_s
                )
                for instance, node in hosts
            }
            follows = any(_parse(instance.service.address or node.address) is None for instance, node in hosts)
            return self._kept(tuple(groups.values()), self._index_of(name, follows=follows))
        addresses = dict.fromkeys(instance.service.address or node.address for instance, node in hosts)
        return self._of_hosts(addresses, rdtype, ttl_s, lambda follows: self._index_of(name, follows=follows))

    def _weight(self, instance: Instance) -> int:
        passing, warning = instance.service.weights
        return warning if self._listing.health_of(instance) is Health.WARNING else passing

    def _index_of(self, name: str, *, follows: bool) -> IndexNow:
        """The index by which an answer about a service is out of date; one that follows aliases tells of others too."""
        return (lambda: self._listing.index) if follows else (lambda: self._listing.service_index(name))

    def _srv_group(self, node: NodeDefinition, address: str, port: int, weight: int, ttl_s: int) -> Group:
        host = address or node.address
        parsed = _parse(host)
        if parsed is None:
            target = _host_name(host)
            extras = tuple(self._tails_behind(host, ttl_s, _MAX_ALIASES))
        else:
            target = self._address_name(parsed) if address else self._node_name(node)
            extras = (_address_tail(parsed, ttl_s),)
        head = QUESTION_POINTER + _tail(Type.SRV, ttl_s, struct.pack("!HHH", 1, weight, port) + target)
        return Group(head, target=len(head) - len(target), extras=extras, meta=self._meta(node))

    # Nodes and addresses.

    def _node(self, wanted: str, rdtype: int) -> Answer:
        nodes = (node.definition for node in self._listing.nodes.values())
        node = next((node for node in nodes if node.name.lower() == wanted), None)
        if node is None:
            return self._nothing(Rcode.NXDOMAIN)
        texts = tuple(_tail(Type.TXT, self._policy.node_ttl_s, text) for text in _texts(node))
        about = tuple(Group(QUESTION_POINTER + text) for text in texts)
        if rdtype == Type.TXT:
            return self._kept(about, lambda: self._listing.nodes_index) if about else self._nothing(Rcode.NOERROR)
        answer = self._of_host(node.address, rdtype, self._policy.node_ttl_s, lambda: self._listing.index)
        if rdtype == Type.ANY:
            return replace(answer, groups=answer.groups + about)
        return replace(answer, extras=tuple(QUESTION_POINTER + text for text in texts))

    def _address(self, address: Address, rdtype: int) -> Answer:
        if rdtype not in {address_type(address), Type.ANY}:
            return self._nothing(Rcode.NOERROR)
        return Answer(Rcode.NOERROR, (Group(QUESTION_POINTER + _address_tail(address, self._policy.node_ttl_s)),))

    def _reversed(self, address: Address, rdtype: int) -> Answer:
        owner = self._reverse.find(address)
        if owner is None:
            return Answer(Rcode.REFUSED)  # somebody else may know
        if rdtype not in {Type.PTR, Type.ANY}:
            return Answer(Rcode.NOERROR)
        pointed = self._node_name(owner) if isinstance(owner, NodeDefinition) else self._service_name(owner)
        return Answer(Rcode.NOERROR, (Group(QUESTION_POINTER + _tail(Type.PTR, 0, pointed)),))

    def _of_host(self, host: str, rdtype: int, ttl_s: int, index_now: IndexNow) -> Answer:
        return self._of_hosts([host], rdtype, ttl_s, lambda _: index_now)

    def _of_hosts(self, hosts: Iterable[str], rdtype: int, ttl_s: int, index_of: Callable[[bool], IndexNow]) -> Answer:
        """The addresses of `hosts`; those that are names become an alias if there is no address at all."""
        parsed = {host: _parse(host) for host in hosts}
        addresses = dict.fromkeys(address for address in parsed.values() if address is not None)
        wanted = [address for address in addresses if rdtype in {address_type(address), Type.ANY}]
        if wanted:
            groups = tuple(Group(QUESTION_POINTER + _address_tail(address, ttl_s)) for address in wanted)
            return self._kept(groups, index_of(False))
        aliases = [host for host, address in parsed.items() if address is None]
        if addresses or not aliases or rdtype not in {Type.A, Type.AAAA, Type.ANY, Type.CNAME}:
            return self._nothing(Rcode.NOERROR)
        groups = tuple(self._alias(host, rdtype, ttl_s) for host in aliases)
        return replace(self._kept(groups, index_of(True)), one_only=True)

    def _alias(self, host: str, rdtype: int, ttl_s: int) -> Group:
        """The other name, and the addresses behind it where it is one of this zone."""
        target = _host_name(host)
        head = QUESTION_POINTER + _tail(Type.CNAME, ttl_s, target)
        types = {Type.A, Type.AAAA} if rdtype == Type.ANY else {rdtype}
        tails = [tail for tail in self._tails_behind(host, ttl_s, _MAX_ALIASES) if _type_of(tail) in types]
        return Group(head + b"".join(target + tail for tail in tails), count=1 + len(tails))

    def _tails_behind(self, host: str, ttl_s: int, depth: int) -> list[bytes]:
        """Addresses of a name of this zone, without their owner; none of any other."""
        labels = tuple(label.encode() for label in host.lower().rstrip(".").split("."))
        match self.read_name(labels) if depth else ForeignName():
            case ServiceName(service, tag):
                members = self._healthy(self._listing.services.get(self._spelled(service), {}).values(), tag)
                hosts = [item.service.address or self._listing.nodes[item.node].definition.address for item in members]
            case NodeName(wanted):
                nodes = (node.definition for node in self._listing.nodes.values())
                hosts = [node.address for node in nodes if node.name.lower() == wanted]
            case AddressName(address):
                hosts = [str(address)]
            case _:
                return []
        tails: list[bytes] = []
        for other in dict.fromkeys(hosts[:_MAX_BEHIND]):
            parsed = _parse(other)
            found = self._tails_behind(other, ttl_s, depth - 1) if parsed is None else [_address_tail(parsed, ttl_s)]
            tails += found
        return tails[:_MAX_BEHIND]

    # Names of our own.

    def _kept(self, groups: tuple[Group, ...], index_now: IndexNow) -> Answer:
        return Answer(Rcode.NOERROR, groups, index=index_now(), index_now=index_now)

    def _node_name(self, node: NodeDefinition) -> bytes:
        return self._named(node.name, b"node")

    def _service_name(self, service: str) -> bytes:
        return self._named(service, b"service")

    def _address_name(self, address: Address) -> bytes:
        return self._named(address.packed.hex(), b"addr")

    def _named(self, name: str, kind: bytes) -> bytes:
        try:
            labels = tuple(label.encode() for label in name.split("."))
            return encode_labels((*labels, kind, self._datacenter.encode(), *self._domain))
        except ValueError:
            return self._apex  # a name that DNS cannot have; its address is told all the same

    def _meta(self, node: NodeDefinition) -> tuple[bytes, ...]:
        owner = self._node_name(node)
        return tuple(owner + _tail(Type.TXT, self._policy.node_ttl_s, text) for text in _texts(node))


def _tail(rdtype: Type, ttl_s: int, rdata: bytes) -> bytes:
    return record(b"", rdtype, min(ttl_s, MAX_TTL_S), rdata)


def _address_tail(address: Address, ttl_s: int) -> bytes:
    return _tail(address_type(address), ttl_s, address.packed)


def _type_of(tail: bytes) -> int:
    return int.from_bytes(tail[:2])


def _parse(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return ip_address("127.0.0.1") if host.lower() == "localhost" else None


def _host_name(host: str) -> bytes:
    try:
        return encode_name(host)
    except (ValueError, UnicodeError):
        return b"\x00"


def _texts(node: NodeDefinition) -> Iterator[bytes]:
    """Metadata in the form of RFC 1464, `name=value`."""
    for key, value in sorted((node.meta or {}).items()):
        yield text_rdata(value if key.lower().startswith(_PLAIN_META) else f"{_quoted(key)}={value}")


def _quoted(key: str) -> str:
    return key.replace("`", "``").replace("=", "`=")
