"""How the registry answers in DNS: what an operator may set, as the zone and the server need it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DnsPolicy:
    """Consul's `dns_config` in seconds and bytes.

    Attributes:
        domain: What every name ends in.
        only_passing: Whether instances with a warning are left out, as those that are critical always are.
        node_ttl_s: Life of what is said about nodes.
        service_ttl_s: Life of what is said about a service, by its name or by a prefix that ends in `*`.
        udp_answers: Most records over UDP for those who do not speak EDNS; fewer are a fair share of the traffic.
        truncate: Whether an answer that was cut says so, which makes askers come back over TCP.
        recursors: Where to ask for names of others, as `(address, port)`; none refuses them.
    """

    domain: str = "consul"
    only_passing: bool = False
    node_ttl_s: int = 0
    service_ttl_s: Mapping[str, int] = field(default_factory=dict[str, int])
    udp_answers: int = 3
    truncate: bool = False
    recursors: tuple[tuple[str, int], ...] = ()

    def ttl_of_service(self, name: str) -> int:
        """By the whole name, else by the longest prefix, else 0."""
        known = self.service_ttl_s.get(name)
        if known is not None:
            return known
        prefixes = [key for key in self.service_ttl_s if key.endswith("*") and name.startswith(key[:-1])]
        return self.service_ttl_s[max(prefixes, key=len)] if prefixes else 0
