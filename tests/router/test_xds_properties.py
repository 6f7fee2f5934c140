"""Whatever happens in whatever order: a client ends with what there is, and never has a route that leads nowhere.

The client is a model of Envoy: it asks for the endpoints of the clusters that it has, and acknowledges clusters when it
has got them. Its answers may be late, and between them everything may change.
"""

from collections import deque
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st
from toska_router.xds.exchange import Request, Response
from toska_router.xds.resources import ResourceSet
from toska_router.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE, WHOLE_TYPES
from toska_tests.xds_talk import Talk, resource_set

CLUSTERS = ("a", "b", "c")
ROUTES = ("r", "s")


@dataclass(frozen=True)
class World:
    """Clusters with versions, and routes that lead to some of them."""

    clusters: dict[str, str]
    routes: dict[str, str]

    def resources(self) -> ResourceSet:
        return resource_set(
            {
                CLUSTER: self.clusters,
                ENDPOINTS: dict.fromkeys(self.clusters, "1"),
                LISTENER: {"web": "1"},
                ROUTE: self.routes,
            }
        )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any that is consistent."""
    names = draw(st.lists(st.sampled_from(CLUSTERS), min_size=1, unique=True))
    clusters = {name: draw(st.sampled_from(("1", "2"))) for name in names}
    return World(clusters, {route: draw(st.sampled_from(names)) for route in ROUTES})


class Envoy:
    """The model: it hears responses when told to, one at a time."""

    def __init__(self, world: World, *, incremental: bool) -> None:
        self._incremental = incremental
        self._talk = Talk(world.resources(), incremental=incremental)
        self._unread: deque[Response] = deque()
        self._nonces: dict[str, str] = {}
        self._warming: Response | None = None
        self._warm: set[str] = set()
        self.have: dict[str, dict[str, str]] = {each: {} for each in (CLUSTER, ENDPOINTS, LISTENER, ROUTE)}
        self._asked: set[str] = set()
        for type_url in (CLUSTER, LISTENER):
            self._say(Request(type_url))
        self._say(Request(ROUTE, names=ROUTES, subscribe=ROUTES))

    def change(self, world: World) -> None:
        self._unread += self._talk.change(world.resources())

    def read(self) -> bool:
        """Take one response in; tells whether there was any."""
        if not self._unread:
            return False
        response = self._unread.popleft()
        self._nonces[response.type_url] = response.nonce
        have = self.have[response.type_url]
        changed = {each.name for each in response.resources if have.get(each.name) != each.version}
        if not self._incremental and response.type_url in WHOLE_TYPES:
            have.clear()
        # Endpoints of a cluster that left while they were on their way are nobody's.
        taken = [each for each in response.resources if response.type_url != ENDPOINTS or each.name in self._asked]
        have.update({each.name: each.version for each in taken})
        for name in response.removed:
            have.pop(name, None)
        if response.type_url == CLUSTER:
            self._take_clusters(response, changed)
        elif response.type_url == ENDPOINTS:
            self._warm |= {each.name for each in taken}
            self._answer(response)
            self._finish_warming()
        else:
            self._answer(response)
        assert set(self.have[ROUTE].values()) <= set(self.have[CLUSTER]), "a route leads nowhere"
        return True

    def _take_clusters(self, response: Response, changed: set[str]) -> None:
        self._warm -= changed
        wanted = set(self.have[CLUSTER])
        gone, new = self._asked - wanted, wanted - self._asked
        self._asked = wanted
        self._warming = response
        for name in gone:
            self.have[ENDPOINTS].pop(name, None)
            self._warm.discard(name)
        if gone or new:
            nonce = "" if self._incremental else self._nonces.get(ENDPOINTS, "")
            self._say(
                Request(
                    ENDPOINTS,
                    nonce=nonce,
                    names=tuple(wanted),
                    subscribe=tuple(new),
                    unsubscribe=tuple(gone),
                )
            )
        self._finish_warming()

    def _finish_warming(self) -> None:
        if self._warming is not None and set(self.have[CLUSTER]) <= self._warm:
            response, self._warming = self._warming, None
            self._answer(response)

    def _answer(self, response: Response) -> None:
        names = {ENDPOINTS: tuple(self._asked), ROUTE: ROUTES}.get(response.type_url, ())
        self._say(Request(response.type_url, nonce=response.nonce, version=response.version, names=names))

    def _say(self, request: Request) -> None:
        self._unread += self._talk.say(request)

    @property
    def settled(self) -> bool:
        return self._talk.stream.settled


@settings(max_examples=60, deadline=None)
@given(
    incremental=st.booleans(),
    first=worlds(),
    steps=st.lists(st.one_of(worlds(), st.integers(min_value=1, max_value=4)), max_size=25),
)
def test_clients_end_with_what_there_is_and_no_route_ever_leads_nowhere(
    incremental: bool, first: World, steps: list[World | int]
) -> None:
    envoy = Envoy(first, incremental=incremental)
    last = first
    for step in steps:
        if isinstance(step, World):
            last = step
            envoy.change(step)
        else:
            for _ in range(step):
                envoy.read()
    for _ in range(200):
        if not envoy.read():
            break
    assert envoy.settled
    assert envoy.have == {
        CLUSTER: last.clusters,
        ENDPOINTS: dict.fromkeys(last.clusters, "1"),
        LISTENER: {"web": "1"},
        ROUTE: last.routes,
    }


NAMES = ("a", "b", "c", "d")
SUBSCRIPTION = st.sets(st.sampled_from(NAMES))
VERSIONS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(("1", "2", "bad")))


class Client:
    """Asks for one type without order, and refuses whatever is `bad`."""

    def __init__(self, *, incremental: bool) -> None:
        self.talk = Talk(resource_set({}), incremental=incremental, aggregated=False)
        self.have: dict[str, str] = {}
        self.asked: set[str] = set()
        self._incremental = incremental
        self._unread: deque[Response] = deque()
        self._nonce = ""

    def ask(self, names: set[str]) -> None:
        """Ask for these, and no others any more."""
        subscribe, unsubscribe = tuple(names - self.asked), tuple(self.asked - names)
        self.asked = set(names)
        for name in unsubscribe:
            self.have.pop(name, None)
        sent = "" if self._incremental else self._nonce
        wanted = tuple(self.asked)
        self._unread.extend(
            self.talk.say(Request(ENDPOINTS, nonce=sent, names=wanted, subscribe=subscribe, unsubscribe=unsubscribe))
        )

    def change(self, versions: dict[str, str]) -> None:
        """Have the server hold these."""
        self._unread.extend(self.talk.change(resource_set({ENDPOINTS: versions})))

    def read(self) -> bool:
        """Take the next response, if there is one."""
        if not self._unread:
            return False
        response = self._unread.popleft()
        self._nonce = response.nonce
        names = tuple(self.asked)
        if any(each.version == "bad" for each in response.resources):
            self._unread.extend(self.talk.refuse(response, "bad", *names))
            return True
        self.have.update({each.name: each.version for each in response.resources if each.name in self.asked})
        for name in response.removed:
            self.have.pop(name, None)
        self._unread.extend(self.talk.accept(response, *names))
        return True


@settings(max_examples=60, deadline=None)
@given(
    incremental=st.booleans(),
    steps=st.lists(st.one_of(SUBSCRIPTION, VERSIONS.map(dict), st.none()), max_size=20),
    last=VERSIONS,
)
@example(  # what it refused together with another is gone before it is sent again
    incremental=True, steps=[{"a": "1"}, None, {"a", "b"}, {"a": "2", "b": "bad"}, None], last={}
)
def test_each_client_has_what_it_asked_for_but_for_what_it_refuses(
    incremental: bool, steps: list[set[str] | dict[str, str] | None], last: dict[str, str]
) -> None:
    """`None` lets the client read once."""
    client = Client(incremental=incremental)
    client.ask({"a"})
    for step in steps:
        match step:
            case None:
                client.read()
            case set():
                client.ask(step)
            case _:
                client.change(step)
    client.change(last)
    for _ in range(300):
        if not client.read():
            break

    (subscription,) = client.talk.stream.subscriptions
    wanted = {name: version for name, version in last.items() if name in client.asked}
    assert client.talk.stream.settled
    bad = {name for name, version in wanted.items() if version == "bad"}
    assert {name for name in subscription.refusals if name in client.asked} == bad
    good = {name: version for name, version in wanted.items() if version != "bad"}
    assert {name: version for name, version in client.have.items() if wanted.get(name) not in (None, "bad")} == good
    if incremental:
        assert client.have.keys() - wanted.keys() == set()
