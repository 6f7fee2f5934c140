"""What our own workers cannot do, of the words of routing: named with its place and the reason, and never ignored."""

from toska_common.contracts.routing import Cluster, RouteTable
from toska_common.routing.problems import Finding


def find_refusals(table: RouteTable) -> list[Finding]:
    """Everything of a table that only another engine serves."""
    return [refusal(name) for name, cluster in table.clusters.items() if is_refused(cluster)]


def is_refused(cluster: Cluster) -> bool:
    """Whether a cluster is for another engine."""
    return cluster.protocol != "http1"


def refusal(cluster: str) -> Finding:
    """What is said of such a cluster."""
    reason = "our own workers speak HTTP/1.1 with endpoints; run the gateway with --engine envoy"
    return Finding(("clusters", cluster, "protocol"), reason)
