"""Who depends on whom: what services say when they register, and what they report of their callers. Pure.

Pictures are text: Mermaid for Markdown and the browser, DOT for Graphviz.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from toska_common.contracts.discovery import OTHER_CALLERS, GraphEdge, GraphNode, Health, ServiceGraph
from toska_common.contracts.profile import meta_key

from toska_discovery.member import Member

_DEPENDS_ON = meta_key("depends_on")
_BEST_FIRST = (Health.PASSING, Health.WARNING, Health.CRITICAL)
_COLOURS = {Health.PASSING: "#dff3e4", Health.WARNING: "#fdf3d1", Health.CRITICAL: "#fbe0dd"}


@dataclass(slots=True)
class _Edge:
    declared: bool = False
    observed: bool = False
    requests: int = 0


@dataclass(slots=True)
class _Found:
    edges: dict[tuple[str, str], _Edge] = field(default_factory=dict[tuple[str, str], _Edge])
    health: dict[str, list[Health]] = field(default_factory=dict[str, list[Health]])

    def add(self, member: Member) -> None:
        self.health.setdefault(member.service, []).append(member.health)
        for callee in member.words(_DEPENDS_ON):
            self._edge(member.service, callee).declared = True
        report = member.report
        for caller, requests in () if report is None else report.callers.items():
            if caller != OTHER_CALLERS:
                edge = self._edge(caller, member.service)
                edge.observed = True
                edge.requests += requests

    def _edge(self, caller: str, callee: str) -> _Edge:
        return self.edges.setdefault((caller, callee), _Edge())


def build_graph(members: Iterable[Member], *, around: str = "") -> ServiceGraph:
    """The graph of all services, or of those that `around` calls or is called by."""
    found = _Found()
    for member in members:
        found.add(member)
    edges = {key: edge for key, edge in found.edges.items() if not around or around in key}
    names = {name for key in edges for name in key} | ({around} & found.health.keys() if around else set(found.health))
    return ServiceGraph(
        nodes=tuple(_node(name, found.health.get(name, [])) for name in sorted(names)),
        edges=tuple(
            GraphEdge(
                caller=caller,
                callee=callee,
                declared=edge.declared,
                observed=edge.observed,
                requests=edge.requests,
            )
            for (caller, callee), edge in sorted(edges.items())
        ),
    )


def _node(name: str, healths: list[Health]) -> GraphNode:
    # A service is as well as its best instance: others can take what one cannot.
    best = next((health for health in _BEST_FIRST if health in healths), Health.CRITICAL)
    return GraphNode(name=name, listed=bool(healths), health=best, instances=len(healths))


def draw_mermaid(graph: ServiceGraph) -> str:
    """A Mermaid flowchart; dotted arrows were declared and not seen yet."""
    number = {node.name: f"s{index}" for index, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    lines += [f'    {number[node.name]}["{_escape_mermaid(node.name)}"]:::{_class(node)}' for node in graph.nodes]
    for edge in graph.edges:
        label = f"|{edge.requests}|" if edge.observed else ""
        arrow = "-->" if edge.observed else "-.->"
        lines.append(f"    {number[edge.caller]} {arrow}{label} {number[edge.callee]}")
    lines += [f"    classDef {health.value} fill:{colour}" for health, colour in _COLOURS.items()]
    lines.append("    classDef absent stroke-dasharray: 4")
    return "\n".join(lines) + "\n"


def draw_dot(graph: ServiceGraph) -> str:
    """A Graphviz digraph; dashed edges were declared and not seen yet."""
    lines = ["digraph services {", "    rankdir=LR;", '    node [shape=box, style="rounded,filled"];']
    for node in graph.nodes:
        style = f'fillcolor="{_COLOURS[node.health]}"' if node.listed else 'style="rounded,dashed"'
        lines.append(f"    {_quote(node.name)} [{style}];")
    for edge in graph.edges:
        style = f' [label="{edge.requests}"]' if edge.observed else " [style=dashed]"
        lines.append(f"    {_quote(edge.caller)} -> {_quote(edge.callee)}{style};")
    return "\n".join([*lines, "}"]) + "\n"


def _class(node: GraphNode) -> str:
    return node.health.value if node.listed else "absent"


def _escape_mermaid(text: str) -> str:
    # Any Consul client names services as it likes; Mermaid's labels take character codes.
    return "".join(letter if letter.isalnum() or letter in "-_. " else f"#{ord(letter)};" for letter in text)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'
