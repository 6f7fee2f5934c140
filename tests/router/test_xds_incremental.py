"""The incremental variant, case by case; sections are those of Envoy's "xDS REST and gRPC protocol"."""

from toska_router.xds.exchange import Acceptance, Refusal, Request
from toska_router.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from toska_tests.xds_talk import Talk, named, resource_set

TWO = resource_set({CLUSTER: {"a": "1", "b": "1"}, ENDPOINTS: {"a": "1", "b": "1"}})


def talk() -> Talk:
    return Talk(TWO, incremental=True)


def test_the_first_request_without_names_means_all() -> None:
    """§How the client specifies what resources to return."""
    assert named(talk().say(Request(CLUSTER))) == [("Cluster", ("a", "b"), ())]


def test_only_the_resource_that_changed_is_sent() -> None:
    """§Grouping Resources into Responses."""
    client = talk()
    (first,) = client.say(Request(CLUSTER))
    client.accept(first)

    heard = client.change(resource_set({CLUSTER: {"a": "1", "b": "2"}}))

    assert named(heard) == [("Cluster", ("b",), ())]


def test_a_resource_that_is_gone_is_removed() -> None:
    """§Deleting Resources."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, subscribe=("a", "b")))
    client.accept(first)

    heard = client.change(resource_set({ENDPOINTS: {"b": "1"}}))

    assert named(heard) == [("ClusterLoadAssignment", (), ("a",))]


def test_a_name_that_does_not_exist_is_told_at_once_and_when_it_does() -> None:
    """§Knowing When a Requested Resource Does Not Exist."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, subscribe=("a", "late")))
    assert named([first]) == [("ClusterLoadAssignment", ("a",), ("late",))]
    client.accept(first)

    assert named(client.change(resource_set({ENDPOINTS: {"a": "1", "late": "1"}}))) == [
        ("ClusterLoadAssignment", ("late",), ())
    ]


def test_names_are_added_to_what_was_asked_for_before() -> None:
    """§Subscribing to Resources."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, subscribe=("a",)))
    client.accept(first)
    (second,) = client.say(Request(ENDPOINTS, subscribe=("b",)))
    client.accept(second)

    heard = client.change(resource_set({ENDPOINTS: {"a": "2", "b": "2"}}))

    assert named([second, *heard]) == [
        ("ClusterLoadAssignment", ("b",), ()),
        ("ClusterLoadAssignment", ("a", "b"), ()),
    ]


def test_a_name_that_is_asked_for_again_is_sent_again() -> None:
    """§Subscribing to Resources: the client may have forgotten it."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, subscribe=("a",)))
    client.accept(first)

    assert named(client.say(Request(ENDPOINTS, subscribe=("a",)))) == [("ClusterLoadAssignment", ("a",), ())]


def test_what_is_not_wanted_any_more_is_not_sent_any_more() -> None:
    """§Unsubscribing from Resources: no response is due, and names that were not asked for are passed over."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, subscribe=("a", "b")))
    client.accept(first)

    assert client.say(Request(ENDPOINTS, unsubscribe=("a", "phantom"))) == []
    assert named(client.change(resource_set({ENDPOINTS: {"a": "2", "b": "2"}}))) == [
        ("ClusterLoadAssignment", ("b",), ())
    ]


def test_leaving_a_name_that_the_wildcard_covers_is_answered_with_it() -> None:
    """§Unsubscribing from Resources: the client cannot know whether to keep it."""
    client = talk()
    (first,) = client.say(Request(CLUSTER, subscribe=("*", "a")))
    client.accept(first)

    assert named(client.say(Request(CLUSTER, unsubscribe=("a",)))) == [("Cluster", ("a",), ())]


def test_leaving_a_name_that_the_wildcard_does_not_cover_is_answered_with_its_removal() -> None:
    """§Unsubscribing from Resources."""
    resources = resource_set({LISTENER: {"web": "1", "orders": "1"}}, on_demand=frozenset({"orders"}))
    client = Talk(resources, incremental=True)
    (first,) = client.say(Request(LISTENER, subscribe=("*", "orders")))
    assert named([first]) == [("Listener", ("orders", "web"), ())]
    client.accept(first)

    assert named(client.say(Request(LISTENER, unsubscribe=("orders",)))) == [("Listener", (), ("orders",))]


def test_a_client_may_go_from_all_to_some_and_to_none() -> None:
    """§How the client specifies what resources to return: the example of four requests."""
    client = talk()
    (first,) = client.say(Request(CLUSTER))
    client.accept(first)
    (a_again,) = client.say(Request(CLUSTER, subscribe=("a",)))
    client.accept(a_again)
    assert client.say(Request(CLUSTER, unsubscribe=("*",))) == []
    (only_a,) = client.change(resource_set({CLUSTER: {"a": "2", "b": "2"}}))
    assert named([only_a]) == [("Cluster", ("a",), ())]
    client.accept(only_a)

    assert client.say(Request(CLUSTER, unsubscribe=("a",))) == []
    assert client.change(resource_set({CLUSTER: {"a": "3", "b": "3"}})) == []


def test_changes_of_the_subscription_hold_although_the_nonce_is_stale() -> None:
    """§Incremental xDS: a nonce must not be used to reject stale requests."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, subscribe=("a",)))
    client.accept(first)

    heard = client.say(Request(ENDPOINTS, nonce="long gone", subscribe=("b",)))

    assert client.verdict is None
    assert named(heard) == [("ClusterLoadAssignment", ("b",), ())]


def test_a_client_that_reconnects_is_sent_only_what_is_different() -> None:
    """§Incremental xDS: `initial_resource_versions`."""
    heard = talk().say(Request(CLUSTER, known={"a": "1", "b": "0", "gone": "1"}))
    assert named(heard) == [("Cluster", ("b",), ())]
    client = talk()
    (changed,) = client.say(Request(CLUSTER, known={"a": "1", "b": "0", "gone": "1"}))

    assert named(client.accept(changed)) == [("Cluster", (), ("gone",))]


def test_a_client_that_reconnects_with_everything_is_sent_nothing() -> None:
    """§Incremental xDS: `initial_resource_versions`."""
    client = talk()
    assert client.say(Request(CLUSTER, known={"a": "1", "b": "1"})) == []
    assert client.say(Request(ENDPOINTS, subscribe=("a",), known={"a": "1"})) == []

    assert named(client.change(resource_set({CLUSTER: {"a": "1"}, ENDPOINTS: {"a": "1"}}))) == [("Cluster", (), ("b",))]


def test_a_wildcard_of_nothing_is_answered_with_nothing() -> None:
    assert named(Talk(resource_set({}), incremental=True).say(Request(LISTENER))) == [("Listener", (), ())]


def test_an_acknowledgement_and_a_refusal_are_told_apart_by_the_error() -> None:
    """§Incremental xDS."""
    client = talk()
    (first,) = client.say(Request(ENDPOINTS, subscribe=("a",)))
    client.accept(first)
    assert client.verdict == Acceptance(ENDPOINTS, first.version)
    (second,) = client.change(resource_set({ENDPOINTS: {"a": "2"}}))

    assert client.refuse(second, "port 0") == []
    assert client.verdict == Refusal(ENDPOINTS, second.version, ("a",), "port 0")


def test_one_wrong_resource_keeps_no_other_from_the_client() -> None:
    names = [f"e{number}" for number in range(20)]
    client = Talk(resource_set({ENDPOINTS: dict.fromkeys(names, "1")}), incremental=True)
    heard = client.say(Request(ENDPOINTS, subscribe=tuple(names)))
    applied: set[str] = set()
    rounds = 0
    while heard:
        rounds += 1
        (response,) = heard
        sent = {each.name for each in response.resources}
        wrong = sent & {"e3", "e17"}
        applied |= set() if wrong else sent
        heard = client.refuse(response, "wrong") if wrong else client.accept(response)

    assert applied == set(names) - {"e3", "e17"}
    assert set(client.stream.subscriptions[0].refusals) == {"e3", "e17"}
    assert rounds < 20
    assert named(client.change(resource_set({ENDPOINTS: {**dict.fromkeys(names, "1"), "e5": "2"}}))) == [
        ("ClusterLoadAssignment", ("e5",), ())
    ]


def test_large_answers_are_divided() -> None:
    """Clients of gRPC take messages of 4 MiB."""
    names = tuple(f"e{number}" for number in range(10))
    resources = resource_set({ENDPOINTS: dict.fromkeys(names, "v" * 1_000_000)})
    client = Talk(resources, incremental=True)
    heard = client.say(Request(ENDPOINTS, subscribe=names))
    got: list[str] = []
    while heard:
        (response,) = heard
        assert sum(len(each.value) for each in response.resources) <= 3 * 1024 * 1024
        got += [each.name for each in response.resources]
        heard = client.accept(response)

    assert sorted(got) == sorted(names)


def test_new_comes_before_what_refers_to_it_and_old_goes_after() -> None:
    """§Eventual consistency considerations: make before break."""
    old = resource_set({CLUSTER: {"x": "1"}, ENDPOINTS: {"x": "1"}, LISTENER: {"web": "1"}, ROUTE: {"r": "to x"}})
    new = resource_set({CLUSTER: {"y": "1"}, ENDPOINTS: {"y": "1"}, LISTENER: {"web": "2"}, ROUTE: {"r": "to y"}})
    client = Talk(old, incremental=True)
    for request in (
        Request(CLUSTER),
        Request(ENDPOINTS, subscribe=("x",)),
        Request(LISTENER),
        Request(ROUTE, subscribe=("r",)),
    ):
        (response,) = client.say(request)
        assert client.accept(response) == []

    (clusters,) = client.change(new)
    (endpoints,) = client.say(Request(ENDPOINTS, subscribe=("y",)))
    assert client.accept(endpoints) == []
    (listeners,) = client.accept(clusters)
    (routes,) = client.accept(listeners)
    (old_clusters,) = client.accept(routes)
    (old_endpoints,) = client.accept(old_clusters)

    assert named([clusters, listeners, routes, old_clusters, old_endpoints]) == [
        ("Cluster", ("y",), ()),
        ("Listener", ("web",), ()),
        ("RouteConfiguration", ("r",), ()),
        ("Cluster", (), ("x",)),
        ("ClusterLoadAssignment", (), ("x",)),
    ]
    assert client.accept(old_endpoints) == []
    assert client.stream.settled


def test_a_name_that_does_not_exist_is_told_again_when_it_was_in_bad_company() -> None:
    client = Talk(resource_set({ENDPOINTS: {"bad": "1"}}), incremental=True)
    (first,) = client.say(Request(ENDPOINTS, subscribe=("bad", "late")))
    (second,) = client.refuse(first, "wrong")

    assert named([first, second]) == [
        ("ClusterLoadAssignment", ("bad",), ("late",)),
        ("ClusterLoadAssignment", (), ("late",)),
    ]
