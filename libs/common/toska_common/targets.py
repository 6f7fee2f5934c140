"""Which addresses the mesh refuses to connect to, whoever asked for it (server-side request forgery).

Checked on the resolved address, just before connecting, so a name that resolves anew cannot slip through.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# Instance metadata of AWS, GCP, Azure, Oracle and OpenStack is link-local; these are the ones that are not.
_METADATA = frozenset(
    {
        ip_address("100.100.100.200"),  # Alibaba Cloud
        ip_address("192.0.0.192"),  # Oracle Cloud, classic
        ip_address("168.63.129.16"),  # Azure's platform address
        ip_address("fd00:ec2::254"),  # AWS over IPv6
        ip_address("fd20:ce::254"),  # GCP over IPv6
    }
)
LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "0.0.0.0/32", "::1/128", "::/128")))
"""Where a connection stays on this machine; the unspecified addresses lead there, too."""
_NAT64, _COMPATIBLE = IPv6Network("64:ff9b::/96"), IPv6Network("::/96")


@dataclass(frozen=True, slots=True)
class TargetRules:
    """The mesh's own management listeners as `(address, port)`, refused besides link-local and cloud metadata.

    A listener on every interface is given once for each of the machine's addresses, besides `0.0.0.0`.

    Attributes:
        networks: Refused besides.
    """

    management: frozenset[tuple[str, int]] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def refusal(self, address: str, port: int) -> str | None:
        """Why `address:port` must not be connected to, or `None` if it may. `address` is a resolved IP address."""
        try:
            ip = _unmapped(ip_address(address.partition("%")[0]))
        except ValueError:
            return f"{address} is not an IP address"
        if ip.is_link_local:
            return f"{ip} is a link-local address"
        if ip in _METADATA:
            return f"{ip} is a cloud metadata address"
        if ip.is_multicast:
            return f"{ip} is a multicast address"
        for network in self.networks:
            if ip in network:
                return f"{ip} is in {network}, where nobody may be sent"
        if (str(ip), port) in self.management:
            return f"{ip}:{port} is a management address of the mesh"
        if ip.is_loopback or ip.is_unspecified:
            for host, own_port in self.management:
                if port == own_port and _reached_over_loopback(host):
                    return f"{ip}:{port} is a management address of the mesh"
        return None


def _reached_over_loopback(host: str) -> bool:
    try:
        ip = ip_address(host)
    except ValueError:
        return host == "localhost"
    return ip.is_loopback or ip.is_unspecified


def _unmapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address within one of IPv6, where there is one (RFC 4291 §2.5.5, RFC 6052 §2.1, RFC 3056)."""
    if not isinstance(ip, IPv6Address):
        return ip
    within = ip.ipv4_mapped or ip.sixtofour
    if within is None and (ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1)):
        within = IPv4Address(int(ip) & 0xFFFFFFFF)
    return within or ip
