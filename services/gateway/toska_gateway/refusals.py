"""What our own workers cannot do, of the words of routing: named with its place and the reason, and never ignored."""

from toska_common.contracts.routing import RouteTable
from toska_common.routing.problems import Finding


def find_refusals(table: RouteTable) -> list[Finding]:
    """Everything of a table that only another engine serves."""
    reason = "our own workers speak HTTP/1.1 with endpoints; run the gateway with --engine envoy"
    return [
        Finding(("clusters", name, "protocol"), reason)
        for name, cluster in table.clusters.items()
        if cluster.protocol != "http1"
    ]
