"""Who has an address: for reverse lookups, which the registry keeps no list for."""

from ipaddress import IPv4Address, IPv6Address, ip_address

from toska_discovery.listing import Listing
from toska_discovery.node import NodeDefinition


class Reverse:
    """Owners by address, made again when somebody asks after the instances or the nodes have changed.

    That takes a look at every instance. What was made is used for as many further lookups as it took looks, so that
    reverse lookups cost a constant time on average however fast the registry changes; they may be that much behind.
    """

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._made_for = (-1, -1)
        self._uses_left = 0
        self._owners: dict[IPv4Address | IPv6Address, NodeDefinition | str] = {}

    def find(self, address: IPv4Address | IPv6Address) -> NodeDefinition | str | None:
        """The node, or else the name of the service, that has `address`."""
        current = (self._listing.services_index, self._listing.nodes_index)
        self._uses_left -= 1
        if current != self._made_for and self._uses_left <= 0:
            self._make()
            self._made_for = current
        return self._owners.get(address)

    def _make(self) -> None:
        owners: dict[IPv4Address | IPv6Address, NodeDefinition | str] = {}
        for node in self._listing.nodes.values():
            _own(owners, node.definition.address, node.definition)
        for instance in self._listing.instances.values():
            _own(owners, instance.service.address, instance.service.name)
        self._owners = owners
        self._uses_left = len(self._listing.instances) // _FREE_LOOKS


_FREE_LOOKS = 1000
"""Up to so many instances are looked at for every lookup."""


def _own(owners: dict[IPv4Address | IPv6Address, NodeDefinition | str], host: str, owner: NodeDefinition | str) -> None:
    try:
        owners.setdefault(ip_address(host), owner)
    except ValueError:
        return
