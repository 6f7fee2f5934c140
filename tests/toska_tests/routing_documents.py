"""Routing documents of the conformance suite's cases, for tests that play none of them."""

from typing import Any

from toska_tests.conformance.case import Case
from toska_tests.gateways import cluster


def documented(case: Case) -> dict[str, Any]:
    """A case's document, with endpoints that nobody asks."""
    names: list[str] = []
    for one in case.routes:
        to: Any = one.get("to") or ()
        names += [to] if isinstance(to, str) else [part["cluster"] for part in to]
    here = {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}
    clusters = {name: cluster(9001) for name in names} | {name: {**one, **here} for name, one in case.clusters.items()}
    return {"server": dict(case.server), "clusters": clusters, "routes": list(case.routes)}
