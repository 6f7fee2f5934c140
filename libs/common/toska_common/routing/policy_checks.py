"""Policies by name: names that lead nowhere, clusters that are not there, and policies that do not go together.

Pure; findings are located as in `checks`, which calls this.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from toska_common.contracts.routing import Policies, Route, RoutingDocument
from toska_common.routing.merging import merge
from toska_common.routing.problems import Finding, Location, suggestion


def check_policies(
    routes: Sequence[Route | None],
    policies: Mapping[str, Policies],
    *,
    known: Collection[str],
    known_clusters: Collection[str],
    beside: RoutingDocument,
) -> Iterator[Finding]:
    """Find everything wrong with policies and with the routes that name them.

    Args:
        routes: In the order of writing.
        policies: Those that could be read.
        known: Names that routes may refer to, also of policies that could not be read, besides those of `beside`.
        known_clusters: All clusters of the table.
        beside: What stands beside them in the same table, from another source.
    """
    names = {*known, *beside.policies}
    named = {**beside.policies, **policies}
    for name, policy in policies.items():
        if name in beside.policies:
            yield Finding(("policies", name), "another source has a policy of this name")
        if policy.watch is not None:
            yield Finding(("policies", name, "watch"), "is set by rollouts and experiments alone")
        for where, cluster in policy.named_clusters():
            if cluster not in known_clusters:
                meant = suggestion(cluster, known_clusters)
                yield Finding(("policies", name, *where), f'there is no cluster "{cluster}"{meant}')
    for index, route in enumerate(routes):
        if route is not None and route.policies_from:
            yield from check_use(("routes", index, "policies_from"), route, names, named)
    for route in beside.routes:
        # Those whose policies are as they were are right still.
        if any(name in policies or name not in names for name in route.policies_from):
            for finding in check_use((), route, names, named):
                yield Finding(("policies",), f'the route "{route.name}" of another source: {finding.reason}')


def check_use(at: Location, route: Route, names: Collection[str], named: Mapping[str, Policies]) -> Iterator[Finding]:
    """Find what is wrong with the policies that a route names, out of `names`; those that can be read are `named`."""
    missing = [(index, name) for index, name in enumerate(route.policies_from) if name not in names]
    for index, name in missing:
        yield Finding((*at, index), f'there is no policy "{name}"{suggestion(name, names)}')
    if missing or any(name not in named for name in route.policies_from):
        return
    try:
        merge(route, named)
    except ValueError as error:
        yield Finding(at, f"with {', '.join(route.policies_from)}: {error}")
