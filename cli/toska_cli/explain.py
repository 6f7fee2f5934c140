"""`toska explain`: where the gateway would send a request, and why nowhere else."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from toska_cli.admin_api import AdminApi

_SHOWN: Final = 8
"""Routes that were not taken, and endpoints that get nothing, beyond which only their number is told."""


def explain(gateway: AdminApi, request: Mapping[str, Any], *, as_json: bool) -> bool:
    """Print what would become of a request; whether anything but a refusal.

    Args:
        gateway: Whom to ask.
        request: The fields of `toska_common.contracts.explanation.ExplainRequest`.
        as_json: One JSON line instead of text.

    Raises:
        MeshError: The gateway refused the question, or does not answer.
    """
    told = gateway.post("/api/v1/gateway/explain", dict(request))
    text = json.dumps(told) if as_json else "\n".join(_lines(request["method"], told))
    sys.stdout.write(text + "\n")
    return told["outcome"] in ("forwarded", "answered")


def _lines(method: str, told: Mapping[str, Any]) -> Iterator[str]:
    yield f"{method} {told['host']}{told['path']}"
    outcome = told["outcome"]
    if outcome in ("refused", "no-route"):
        yield _line("answer", f"{told['status']} {told['error']}" + (f": {told['detail']}" if told["detail"] else ""))
        if told["allowed_methods"]:
            yield _line("allowed", ", ".join(told["allowed_methods"]))
    else:
        priority = f", priority {told['priority']}" if told["priority"] else ""
        rank = f"rank {told['rank']}, {told['origin']}{priority}"
        yield _line("route", f"{told['route']}  ({rank})  {_words(told['match'])}")
        for name, settings in told["policies"].items():
            yield _line("policy", f"{name}: {_words(settings)}")
        if told["policies_from"]:
            yield _line("", f"with those of {', '.join(told['policies_from'])}; a later one goes before an earlier")
        for kind in ("redirect", "respond"):
            if told[kind]:
                yield _line(kind, _words(told[kind]))
        if told["split"]:
            yield _line("split", told["split"])
        for cluster in told["clusters"]:
            yield from _cluster(cluster)
    for note in told["notes"]:
        yield _line("note", note)
    yield from _others(told["others"])


def _cluster(cluster: Mapping[str, Any]) -> Iterator[str]:
    circuit = f", circuit {cluster['circuit']}" if cluster["circuit"] else ""
    yield _line("cluster", f"{cluster['name']}  {cluster['share']:.0%}  {cluster['balancer']}{circuit}")
    if cluster["failover"]:
        yield _line("", cluster["failover"])
    if cluster["refusal"]:
        yield _line("", f"503: {cluster['refusal']}")
    ranked = sorted(cluster["endpoints"], key=lambda one: -one["share"])
    for one in ranked[: _SHOWN * 2]:
        zone = f"  zone {one['zone']}" if one["zone"] else ""
        load = f"weight {one['weight']}{zone}, {one['active']} active"
        yield _line("endpoint", f"{one['address']}  {one['share']:.1%}  {one['state']}  {load}")
    if len(ranked) > _SHOWN * 2:
        yield _line("", f"and {len(ranked) - _SHOWN * 2} more")


def _others(others: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for other in others[:_SHOWN]:
        yield _line("not taken", f"{other['name']}: {'; '.join(other['reasons'])}")
    if len(others) > _SHOWN:
        yield _line("", f"and {len(others) - _SHOWN} more; --json shows them")


def _line(name: str, text: str) -> str:
    return f"  {name:<10} {text}"


def _words(settings: Any) -> str:
    return json.dumps(settings, ensure_ascii=False) if isinstance(settings, (dict, list)) else str(settings)
