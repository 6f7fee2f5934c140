"""A table that is compiled change by change is the one compiled at once, and its changes are checked as strictly."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.contracts.routing import (
    Cluster,
    Endpoint,
    Failover,
    Match,
    NamedPolicy,
    Route,
    RoutingDocument,
    WeightedCluster,
)
from toska_common.routing.neighbours import neighbours_of
from toska_common.routing.problems import InvalidDocument
from toska_common.routing.table_index import index_of
from toska_common.routing.tables import compare
from toska_common.routing.versions import table_version
from toska_router.compiler import Compiled, Wanted, compile_table
from toska_router.documents import Change, apply, changes_between
from toska_router.errors import ClusterInUse, OwnedElsewhere, PolicyInUse
from toska_router.sources import Sources, find_problems, find_problems_of

CLUSTERS = ("a", "b", "shop", "gone")
FILE = RoutingDocument(
    clusters={"a": Cluster(service="a")},
    policies={"quick": NamedPolicy(upgrade=("websocket",))},
    routes=tuple(
        Route(name=f"file-{place}", match=Match(path_prefix=f"/f{place}"), to=(WeightedCluster(cluster="a"),))
        for place in range(3)
    ),
)
OFFERED = {"shop": (Route(name="auto:shop:extra", match=Match(path="/extra"), to=(WeightedCluster(cluster="shop"),)),)}

matches = st.builds(
    Match,
    host=st.sampled_from([None, "x.test"]),
    path_prefix=st.sampled_from(["/", "/f1", "/p"]),
    methods=st.sampled_from([(), ("GET",)]),
)
routes = st.builds(
    Route,
    name=st.sampled_from([*"klmno", "file-1"]),
    match=matches,
    priority=st.sampled_from([0, 0, 5]),
    to=st.sampled_from(["a", "a", "a", *CLUSTERS]).map(lambda name: (WeightedCluster(cluster=name),)),
    policies_from=st.sampled_from([(), (), (), ("quick",), ("slow",)]),
)
clusters = st.builds(
    Cluster,
    endpoints=st.sampled_from(
        [(Endpoint(address="10.0.0.1", port=1),), (Endpoint(address="169.254.169.254", port=1),)]
    ),
    failover=st.sampled_from([None, None, Failover(to=("a",)), Failover(to=("gone",))]),
)
policies = st.builds(NamedPolicy, upgrade=st.sampled_from([(), ("websocket",)]))


def to_put(kind: str, name: str, resource: object) -> Change:
    return Change(kind, name, resource)  # pyright: ignore[reportArgumentType] - as the strategies pair them


changes = st.one_of(
    routes.map(lambda route: to_put("route", route.name, route)),
    routes.map(lambda route: to_put("route", route.name, route)),
    st.builds(to_put, st.just("cluster"), st.sampled_from(CLUSTERS), clusters),
    st.builds(to_put, st.just("policy"), st.sampled_from(["slow", "quick"]), policies),
    st.builds(to_put, st.just("route"), st.sampled_from("klmno"), st.none()),
    st.builds(to_put, st.just("cluster"), st.sampled_from(CLUSTERS), st.none()),
    st.builds(to_put, st.just("policy"), st.just("slow"), st.none()),
)
steps = st.lists(st.lists(changes, min_size=1, max_size=3, unique_by=lambda one: (one.kind, one.name)), max_size=12)


def afresh(document: RoutingDocument) -> RoutingDocument:
    """The same, of which nothing is known."""
    return RoutingDocument.model_validate(document.model_dump(exclude_unset=True))


def whole(sources: Sources) -> Compiled:
    return compile_table(Wanted(Sources(afresh(sources.file), afresh(sources.own)), frozenset({"shop"}), OFFERED))


@settings(deadline=None, max_examples=150)
@given(steps)
def test_a_table_compiled_in_steps_is_the_one_that_is_compiled_at_once(edited: list[list[Change]]) -> None:
    sources = Sources(FILE)
    before = compile_table(Wanted(sources, frozenset({"shop"}), OFFERED))
    for step in edited:
        try:
            sources = sources.with_changes([one for one in step if one.resource is not None or is_there(sources, one)])
        except (InvalidDocument, ClusterInUse, OwnedElsewhere, PolicyInUse):
            continue
        after, fresh = compile_table(Wanted(sources, frozenset({"shop"}), OFFERED), before), whole(sources)
        assert after.table == fresh.table
        assert after.keys == fresh.keys
        assert table_version(after.table) == table_version(fresh.table)
        assert list(index_of(after.table).names) == [route.name for route in fresh.table.routes]
        assert index_of(after.table).by_name == index_of(fresh.table).by_name
        assert {place: set(map(name_of, found)) for place, found in neighbours_of(after.table).items()} == {
            place: set(map(name_of, found)) for place, found in neighbours_of(fresh.table).items()
        }
        different = compare(before.table.model_copy(), fresh.table)
        told = compare(before.table, after.table)
        assert different.clusters <= told.clusters
        assert different.routes <= told.routes
        before = after


@settings(deadline=None, max_examples=300)
@given(steps)
def test_changes_are_refused_exactly_if_the_whole_would_be(edited: list[list[Change]]) -> None:
    own = RoutingDocument()
    for step in edited:
        after = apply(own, step)
        assert after == apply_to_all(own, step)
        wrong = bool(find_problems(FILE, after)) or takes_names(after)
        assert bool(find_problems_of(step, FILE, after)) == wrong
        if not wrong:
            assert [(one.kind, one.name) for one in changes_between(own, after)] == [
                (one.kind, one.name) for one in changes_between(own.model_copy(), after.model_copy())
            ]
            own = after


def test_a_change_of_one_route_leaves_all_others_as_the_same_objects() -> None:
    own = RoutingDocument(
        clusters={"b": Cluster(service="b")},
        routes=tuple(
            Route(name=f"r{place:03}", match=Match(path=f"/{place}"), to=(WeightedCluster(cluster="b"),))
            for place in range(100)
        ),
    )
    sources = Sources(FILE, own)
    before = compile_table(Wanted(sources))
    changed = own.routes[50].model_copy(update={"priority": 7})
    after = compile_table(Wanted(sources.with_changes([Change("route", "r050", changed)])), before)
    assert after.table.clusters is before.table.clusters
    assert after.table.routes[0] is changed
    assert {id(one) for one in after.table.routes} - {id(one) for one in before.table.routes} == {id(changed)}
    assert compare(before.table, after.table).routes == {"r050"}


def takes_names(own: RoutingDocument) -> bool:
    """Whether it has a name that the file has."""
    routes = {one.name for one in FILE.routes} & {one.name for one in own.routes}
    return bool(routes or FILE.clusters.keys() & own.clusters.keys() or FILE.policies.keys() & own.policies.keys())


def is_there(sources: Sources, change: Change) -> bool:
    return sources.find_written(change.kind, change.name) is not None


def apply_to_all(own: RoutingDocument, step: Sequence[Change]) -> RoutingDocument:
    found = {
        "cluster": dict(own.clusters),
        "policy": dict(own.policies),
        "route": {one.name: one for one in own.routes},
    }
    for change in step:
        found[change.kind].pop(change.name, None)  # pyright: ignore[reportArgumentType] - by kind
        if change.resource is not None:
            found[change.kind][change.name] = change.resource  # pyright: ignore[reportArgumentType] - as above
    return RoutingDocument.model_construct(
        clusters=dict(sorted(found["cluster"].items())),
        policies=dict(sorted(found["policy"].items())),
        routes=tuple(one for _, one in sorted(found["route"].items())),
    )


def name_of(route: Route) -> str:
    return route.name
