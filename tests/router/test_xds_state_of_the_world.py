"""The state-of-the-world variant, case by case; sections are those of Envoy's "xDS REST and gRPC protocol"."""

import pytest
from toska_router.xds.exchange import Acceptance, Refusal, Request
from toska_router.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from toska_tests.xds_talk import Talk, named, resource_set

TWO = resource_set({CLUSTER: {"a": "1", "b": "1"}, ENDPOINTS: {"a": "1", "b": "1"}})


def talk(*, aggregated: bool = True) -> Talk:
    return Talk(TWO, incremental=False, aggregated=aggregated)


def test_the_first_request_without_names_means_all() -> None:
    """§How the client specifies what resources to return."""
    assert named(talk().say(Request(CLUSTER))) == [("Cluster", ("a", "b"), ())]


def test_a_star_means_all() -> None:
    """§How the client specifies what resources to return."""
    assert named(talk().say(Request(CLUSTER, names=("*",)))) == [("Cluster", ("a", "b"), ())]


def test_no_names_after_names_mean_none() -> None:
    """§How the client specifies what resources to return: the example of four requests."""
    client = talk()
    (all_of_them,) = client.say(Request(CLUSTER))
    (star_and_a,) = client.accept(all_of_them, "*", "a")
    assert named([star_and_a]) == [("Cluster", ("a", "b"), ())]
    assert client.accept(star_and_a, "a") == []
    assert client.accept(star_and_a) == []

    changed = resource_set({CLUSTER: {"a": "2", "b": "2"}})
    assert client.change(changed) == []


def test_only_what_was_asked_for_by_name_is_sent() -> None:
    assert named(talk().say(Request(ENDPOINTS, names=("b", "c")))) == [("ClusterLoadAssignment", ("b",), ())]


def test_a_name_that_is_asked_for_in_addition_is_sent_alone() -> None:
    """§Grouping Resources into Responses: types other than listeners and clusters may be sent in parts."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, names=("a",)))

    assert named(client.accept(first, "a", "b")) == [("ClusterLoadAssignment", ("b",), ())]


def test_a_name_that_is_asked_for_anew_is_sent_anew() -> None:
    """§How the client specifies what resources to return: newly requested ones, even if they were sent before."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, names=("a", "b")))
    assert client.accept(first, "a") == []

    assert named(client.accept(first, "a", "b")) == [("ClusterLoadAssignment", ("b",), ())]


def test_a_resource_that_springs_into_existence_is_sent_to_whom_it_was_asked_by() -> None:
    """§Knowing When a Requested Resource Does Not Exist."""
    client = talk()
    assert client.say(Request(ENDPOINTS, names=("late",))) == []

    assert named(client.change(resource_set({ENDPOINTS: {"late": "1"}}))) == [("ClusterLoadAssignment", ("late",), ())]


def test_one_changed_cluster_is_sent_with_all_others() -> None:
    """§Grouping Resources into Responses: listeners and clusters are the complete state."""
    client = talk()
    (first,) = client.say(Request(CLUSTER))
    client.accept(first)

    (second,) = client.change(resource_set({CLUSTER: {"a": "2", "b": "1"}}))

    assert named([second]) == [("Cluster", ("a", "b"), ())]
    assert second.version != first.version


def test_a_cluster_that_is_gone_is_left_out() -> None:
    """§Deleting Resources."""
    client = talk()
    (first,) = client.say(Request(CLUSTER))
    client.accept(first)

    assert named(client.change(resource_set({CLUSTER: {"b": "1"}}))) == [("Cluster", ("b",), ())]


def test_all_clusters_gone_is_told_by_an_empty_response() -> None:
    """§Deleting Resources: a response containing no resources means to delete all of the type."""
    client = talk()
    (first,) = client.say(Request(CLUSTER))
    client.accept(first)

    assert named(client.change(resource_set({}))) == [("Cluster", (), ())]


def test_endpoints_that_are_gone_are_not_told() -> None:
    """§Deleting Resources: there is no mechanism for other types."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, names=("a", "b")))
    client.accept(first, "a", "b")

    assert client.change(resource_set({ENDPOINTS: {"b": "1"}})) == []
    assert named(client.change(TWO)) == [("ClusterLoadAssignment", ("a",), ())]


def test_a_wildcard_of_nothing_is_answered_with_nothing() -> None:
    """A client that waits for its first listeners must learn that there are none."""
    assert named(Talk(resource_set({}), incremental=False).say(Request(LISTENER))) == [("Listener", (), ())]


def test_what_has_not_changed_is_not_sent_again() -> None:
    """§When to send an update."""
    client = talk()
    (first,) = client.say(Request(CLUSTER))

    assert client.accept(first) == []
    assert client.change(resource_set({CLUSTER: {"a": "1", "b": "1"}})) == []


def test_an_acknowledgement_tells_the_version_that_runs() -> None:
    """§ACK."""
    client = talk()
    (first,) = client.say(Request(CLUSTER))
    client.accept(first)

    assert client.verdict == Acceptance(CLUSTER, first.version)
    assert client.stream.subscriptions[0].accepted_version == first.version
    assert client.stream.settled


def test_a_refusal_is_kept_and_not_answered_until_something_changes() -> None:
    """§NACK, §ACK and NACK semantics summary."""
    client = talk()
    (first,) = client.say(Request(CLUSTER))

    assert client.refuse(first, "no such thing") == []
    assert client.verdict == Refusal(CLUSTER, first.version, ("a", "b"), "no such thing")
    assert client.stream.subscriptions[0].accepted_version == ""
    (second,) = client.change(resource_set({CLUSTER: {"a": "2", "b": "1"}}))
    client.accept(second)
    assert client.stream.subscriptions[0].refusals == {}


def test_a_refusal_of_many_is_narrowed_down_to_the_one_that_is_wrong() -> None:
    names = ("a", "b", "c", "bad", "d")
    client = Talk(resource_set({ENDPOINTS: dict.fromkeys(names, "1")}), incremental=False)
    heard = client.say(Request(ENDPOINTS, names=names))
    accepted: set[str] = set()
    while heard:
        (response,) = heard
        sent = {each.name for each in response.resources}
        if "bad" in sent:
            heard = client.refuse(response, "wrong", *names)
        else:
            accepted |= sent
            heard = client.accept(response, *names)

    assert accepted == {"a", "b", "c", "d"}
    assert list(client.stream.subscriptions[0].refusals) == ["bad"]
    assert client.stream.settled
    mended = resource_set({ENDPOINTS: {**dict.fromkeys(names, "1"), "bad": "2"}})
    (last,) = client.change(mended)
    assert named([last]) == [("ClusterLoadAssignment", ("bad",), ())]
    client.accept(last, *names)
    assert client.stream.subscriptions[0].refusals == {}


def test_a_stale_nonce_is_passed_over() -> None:
    """§Resource updates: the request was made before the newest response was seen."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, names=("a",)))
    client.accept(first, "a")
    (second,) = client.change(resource_set({ENDPOINTS: {"a": "2", "b": "1"}}))

    assert client.accept(first, "a", "b") == []
    assert client.verdict is None
    (third,) = client.accept(second, "a", "b")
    assert named([third]) == [("ClusterLoadAssignment", ("b",), ())]
    assert client.accept(second, "a") == []
    assert client.accept(third, "a", "b") == []  # `b` was never left, as far as the server knows


def test_a_request_before_the_first_response_supersedes_the_one_before() -> None:
    """§When to send an update: only the latest request of a type counts."""
    client = talk()
    client.stream.receive(Request(ENDPOINTS, names=("a",)), TWO)

    assert named(client.say(Request(ENDPOINTS, names=("b",)))) == [("ClusterLoadAssignment", ("b",), ())]


def test_a_client_that_reconnects_with_the_newest_clusters_is_not_sent_them() -> None:
    """§ACK/NACK and resource type instance version: safe where the only subscription is the wildcard."""
    (first,) = talk().say(Request(CLUSTER))
    again = talk()

    assert again.say(Request(CLUSTER, version=first.version)) == []
    assert named(again.change(resource_set({CLUSTER: {"a": "2", "b": "1"}}))) == [("Cluster", ("a", "b"), ())]


def test_a_client_that_reconnects_with_names_is_sent_them_whatever_it_says_to_have() -> None:
    """§ACK/NACK and resource type instance version: it may subscribe to what it did not have."""
    (first,) = talk().say(Request(ENDPOINTS, names=("a",)))

    assert named(talk().say(Request(ENDPOINTS, names=("a",), version=first.version))) != []


def test_resources_on_demand_are_no_part_of_all() -> None:
    resources = resource_set({LISTENER: {"web": "1", "orders": "1"}}, on_demand=frozenset({"orders"}))
    assert named(Talk(resources, incremental=False).say(Request(LISTENER))) == [("Listener", ("web",), ())]
    asking = Talk(resources, incremental=False)
    assert named(asking.say(Request(LISTENER, names=("orders",)))) == [("Listener", ("orders",), ())]
    both = Talk(resources, incremental=False)
    assert named(both.say(Request(LISTENER, names=("*", "orders")))) == [("Listener", ("orders", "web"), ())]


def test_a_client_that_does_not_answer_is_owed_the_newest_state_only() -> None:
    client = talk()
    (first,) = client.say(Request(CLUSTER))
    for version in ("2", "3", "4"):
        assert client.change(resource_set({CLUSTER: {"a": version, "b": "1"}})) == []

    (second,) = client.accept(first)

    assert {each.name: each.version for each in second.resources} == {"a": "4", "b": "1"}
    assert client.accept(second) == []


def test_a_client_that_never_answers_is_waited_for_only_so_long() -> None:
    client = talk()
    client.say(Request(CLUSTER))
    assert client.change(resource_set({CLUSTER: {"a": "2"}})) == []
    assert client.stream.held

    client.stream.let_go()

    assert named(client.hear()) == [("Cluster", ("a", "b"), ())]


def test_streams_of_one_type_make_and_break_at_once() -> None:
    """§Eventual consistency considerations: nothing is in order across streams."""
    client = talk(aggregated=False)
    (first,) = client.say(Request(CLUSTER))
    client.accept(first)

    assert named(client.change(resource_set({CLUSTER: {"b": "2", "c": "1"}}))) == [("Cluster", ("b", "c"), ())]


def test_routes_wait_until_the_clusters_they_lead_to_are_acknowledged() -> None:
    """§Eventual consistency considerations: make before break."""
    old = resource_set({CLUSTER: {"x": "1"}, ENDPOINTS: {"x": "1"}, LISTENER: {"web": "1"}, ROUTE: {"r": "to x"}})
    new = resource_set({CLUSTER: {"y": "1"}, ENDPOINTS: {"y": "1"}, LISTENER: {"web": "1"}, ROUTE: {"r": "to y"}})
    client = Talk(old, incremental=False)
    for type_url, names in ((CLUSTER, ()), (ENDPOINTS, ("x",)), (LISTENER, ()), (ROUTE, ("r",))):
        (response,) = client.say(Request(type_url, names=names))
        assert client.accept(response, *names) == []

    (clusters,) = client.change(new)
    assert named([clusters]) == [("Cluster", ("x", "y"), ())]
    # Envoy asks for the endpoints, and acknowledges the clusters when they are warm.
    endpoints_before = next(each for each in client.heard if each.type_url == ENDPOINTS)
    (endpoints,) = client.accept(endpoints_before, "x", "y")
    assert named([endpoints]) == [("ClusterLoadAssignment", ("y",), ())]
    assert client.accept(endpoints, "x", "y") == []
    (routes,) = client.accept(clusters)
    assert named([routes]) == [("RouteConfiguration", ("r",), ())]
    (rest,) = client.accept(routes, "r")
    assert named([rest]) == [("Cluster", ("y",), ())]
    assert client.accept(rest) == []
    assert client.stream.settled


def test_clusters_stay_while_the_routes_that_leave_them_are_refused() -> None:
    old = resource_set({CLUSTER: {"x": "1"}, ROUTE: {"r": "to x"}})
    client = Talk(old, incremental=False)
    for type_url, names in ((CLUSTER, ()), (ROUTE, ("r",))):
        (response,) = client.say(Request(type_url, names=names))
        client.accept(response, *names)

    (clusters,) = client.change(resource_set({CLUSTER: {"y": "1"}, ROUTE: {"r": "wrong"}}))
    (routes,) = client.accept(clusters)
    assert client.refuse(routes, "wrong", "r") == []

    (mended,) = client.change(resource_set({CLUSTER: {"y": "1"}, ROUTE: {"r": "to y"}}))
    assert named([mended]) == [("RouteConfiguration", ("r",), ())]
    assert named(client.accept(mended, "r")) == [("Cluster", ("y",), ())]


def test_endpoints_follow_a_cluster_that_changed() -> None:
    """§Resource warming: a cluster is warm only after endpoints that came later, even if they are the same."""
    client = talk()
    (clusters,) = client.say(Request(CLUSTER))
    client.accept(clusters)
    (endpoints,) = client.say(Request(ENDPOINTS, names=("a", "b")))
    client.accept(endpoints, "a", "b")

    heard = client.change(resource_set({CLUSTER: {"a": "2", "b": "1"}, ENDPOINTS: {"a": "1", "b": "1"}}))

    assert named(heard) == [("Cluster", ("a", "b"), ()), ("ClusterLoadAssignment", ("a",), ())]


@pytest.mark.parametrize("incremental", [False, True])
def test_endpoints_of_clusters_that_are_being_warmed_are_served_although_they_are_gone(incremental: bool) -> None:
    """§Resource warming: a cluster whose endpoints never come holds up whatever waits for clusters."""
    client = Talk(TWO, incremental=incremental)
    (clusters,) = client.say(Request(CLUSTER))
    assert client.change(resource_set({CLUSTER: {"a": "1"}, ENDPOINTS: {"a": "1"}})) == []

    (endpoints,) = client.say(Request(ENDPOINTS, names=("a", "b"), subscribe=("a", "b")))
    assert named([endpoints]) == [("ClusterLoadAssignment", ("a", "b"), ())]
    assert client.accept(endpoints, "a", "b") == []
    (fewer,) = client.accept(clusters)
    heard = client.accept(fewer)

    if incremental:
        assert named([fewer, *heard]) == [("Cluster", (), ("b",)), ("ClusterLoadAssignment", (), ("b",))]
    else:
        assert named([fewer, *heard]) == [("Cluster", ("a",), ())]
