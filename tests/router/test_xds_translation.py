"""Snapshots as xDS resources: what changed is made anew, what did not is not, and it comes out as if made at once."""

import random
from typing import Any

from toska_common.contracts.routing import Endpoint, RoutingDocument, Snapshot
from toska_common.envoy import ListenerOptions, Options
from toska_common.routing.pools import pool, with_pools
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_router.programming.translation import Translation
from toska_router.xds import Resource, ResourceSet, types
from toska_router.xds.resources import TypeResources

OPTIONS = Options(listeners=(ListenerOptions("web", "127.0.0.1", 10000),))
CLUSTERS = {"orders": {"service": "orders"}, "static": {"endpoints": [{"address": "127.0.0.1", "port": 9}]}}


def snapshot(
    members: dict[str, str], previous: Snapshot | None = None, policies: dict[str, Any] | None = None
) -> Snapshot:
    """Of a route to `orders`, with these instances by name; the same table as `previous`, if given."""
    document = {
        "clusters": CLUSTERS,
        "routes": [{"name": "o", "match": {"path_prefix": "/o"}, "to": "orders", "policies": policies or {}}],
    }
    table = previous.table if previous is not None else build_table(RoutingDocument.model_validate(document))
    instances = {"orders": pool(Endpoint(id=name, address=at, port=80) for name, at in members.items())}
    return build_snapshot(table, instances, previous=previous)


def versions(resources: ResourceSet) -> dict[str, dict[str, str]]:
    return {url: {each.name: each.version for each in found} for url, found in resources.by_type.items()}


def test_changes_come_out_as_if_everything_were_made_at_once() -> None:
    translation = Translation(OPTIONS)
    first = snapshot({"a": "10.0.0.1"})
    translation.update(first)
    # An endpoint more, one with a name (which Envoy looks up itself), none at all, and one again.
    several: tuple[dict[str, str], ...] = (
        {"a": "10.0.0.1", "b": "10.0.0.2"},
        {"a": "orders.internal"},
        {},
        {"a": "10.0.0.3"},
    )
    for members in several:
        changed = snapshot(members, first)
        assert versions(translation.update(changed)) == versions(Translation(OPTIONS).update(changed)), members


def test_instances_that_move_in_many_steps_come_out_as_if_everything_were_made_at_once() -> None:
    translation, chance = Translation(OPTIONS), random.Random(3)
    now = snapshot({})
    for _ in range(60):
        places = chance.choices(["10.0.0.1", "10.0.0.2", "orders.internal"], weights=[5, 5, 1], k=chance.randint(0, 3))
        found = pool(Endpoint(id=str(n), address=at, port=80) for n, at in enumerate(places))
        now = with_pools(now, now.table, now.routes_version, {chance.choice(["orders", "static"]): found})
        made, anew = translation.update(now), Translation(OPTIONS).update(now)
        assert versions(made) == versions(anew)
        assert {url: found.version for url, found in made.by_type.items()} == {
            url: found.version for url, found in anew.by_type.items()
        }


def test_a_set_with_some_changed_is_the_one_that_is_made_of_all() -> None:
    def resources(**names: str) -> list[Resource]:
        return [Resource(name, version) for name, version in names.items()]

    before = TypeResources(resources(a="1", b="1", c="1"))
    [b, d] = resources(b="2", d="1")
    after = before.changed({"b": b, "c": None, "d": d, "e": None})
    anew = TypeResources(resources(d="1", b="2", a="1"))
    assert (after.version, after.by_name) == (anew.version, anew.by_name)
    assert set(after.names_that_differ(before)) == {"b", "c", "d"}
    assert after.changed({"b": b, "x": None}) is after


def test_what_is_the_same_is_the_same_object() -> None:
    translation = Translation(OPTIONS)
    first = snapshot({"a": "10.0.0.1"})
    before = translation.update(first)
    after = translation.update(snapshot({"a": "10.0.0.2"}, first))

    assert after.of(types.LISTENER) is before.of(types.LISTENER)
    assert after.of(types.ROUTE) is before.of(types.ROUTE)
    assert after.of(types.CLUSTER) is before.of(types.CLUSTER)
    assert after.of(types.ENDPOINTS).get("static") is before.of(types.ENDPOINTS).get("static")
    assert after.of(types.ENDPOINTS).get("orders") is not before.of(types.ENDPOINTS).get("orders")


def test_targets_are_for_those_who_ask_by_name() -> None:
    resources = Translation(OPTIONS).update(snapshot({"a": "10.0.0.1"}))

    assert [each.name for each in resources.of(types.LISTENER).wildcard] == ["web"]
    assert resources.of(types.LISTENER).get("orders") is not None
    assert [each.name for each in resources.of(types.CLUSTER).wildcard] == ["orders", "static"]
    assert resources.of(types.CLUSTER).get("grpc/orders") is not None


def test_a_table_that_envoy_cannot_serve_leaves_the_one_before_with_its_endpoints_up_to_date() -> None:
    translation = Translation(OPTIONS)
    good = snapshot({"a": "10.0.0.1"})
    before = translation.update(good)
    bad = snapshot({"a": "10.0.0.2"}, policies={"cache": {}})
    during = translation.update(bad)

    assert [one.location for one in translation.problems] == [("routes", 0, "policies", "cache")]
    assert during.of(types.ROUTE).wildcard == before.of(types.ROUTE).wildcard
    assert during.of(types.ENDPOINTS).get("orders") != before.of(types.ENDPOINTS).get("orders")
    after = translation.update(snapshot({"a": "10.0.0.2"}))
    assert translation.problems == ()
    assert versions(after) == versions(Translation(OPTIONS).update(snapshot({"a": "10.0.0.2"})))


def test_the_first_table_may_be_one_that_envoy_cannot_serve() -> None:
    translation = Translation(OPTIONS)
    resources = translation.update(snapshot({"a": "10.0.0.2"}, policies={"cache": {}}))

    assert translation.problems
    assert resources.of(types.ROUTE).wildcard == ()
    assert resources.of(types.LISTENER).get("orders") is not None


def test_routes_come_out_whole_when_only_some_are_new() -> None:
    def of(*prefixes: str) -> Snapshot:
        routes = [{"name": each, "match": {"path_prefix": f"/{each}"}, "to": "orders"} for each in prefixes]
        document = {"clusters": CLUSTERS, "routes": routes}
        return build_snapshot(build_table(RoutingDocument.model_validate(document)))

    translation = Translation(OPTIONS)
    for prefixes in (("a", "b"), ("b", "c", "a"), ("c",), ()):
        found = translation.update(of(*prefixes)).of(types.ROUTE)
        assert found.version == Translation(OPTIONS).update(of(*prefixes)).of(types.ROUTE).version, prefixes
