"""One stream: its subscriptions, and which of them may be served next.

On an aggregated stream what is new goes out make before break: clusters and endpoints, then listeners, then routes,
each when those before are answered; and only when all of that is answered, what is gone is taken away, from what refers
to what is referred to. While a client refuses a listener or a route, the clusters that it still uses stay.

Streams of a single type have nothing to put in order. Pure, as its subscriptions are.

Source: "xDS REST and gRPC protocol", §Eventual consistency considerations.
"""

from toska_router.xds.exchange import Request, Response, Verdict
from toska_router.xds.resources import ResourceSet, TypeResources
from toska_router.xds.subscription import Subscription
from toska_router.xds.types import BREAK_ORDER, CLUSTER, ENDPOINTS, LISTENER, MAKE_ORDER, ROUTE, WAITS_FOR

MAX_TYPES = 64

_REFERRING = (LISTENER, ROUTE)
_MADE = {type_url: place for place, type_url in enumerate(MAKE_ORDER)}
_BROKEN = {type_url: place for place, type_url in enumerate(BREAK_ORDER)}


class TooManyTypes(Exception):
    """A client asks for more types than there are."""


class Stream:
    """The state of one stream.

    Args:
        incremental: Which variant of the protocol it speaks.
        aggregated: Whether all types are on it, in order.
    """

    def __init__(self, *, incremental: bool, aggregated: bool) -> None:
        self.incremental = incremental
        self.aggregated = aggregated
        self._subscriptions: dict[str, Subscription] = {}
        self._warming: TypeResources | None = None
        self._sent = 0

    @property
    def subscriptions(self) -> list[Subscription]:
        """One for each type that the client has asked for."""
        return list(self._subscriptions.values())

    def receive(self, request: Request, resources: ResourceSet) -> Verdict | None:
        """Take a request in; the verdict if it answers a response.

        Raises:
            TooManyTypes: It has asked for `MAX_TYPES` already.
        """
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            if len(self._subscriptions) >= MAX_TYPES:
                raise TooManyTypes
            of_type = resources.of(request.type_url)
            subscription = Subscription(request.type_url, of_type, incremental=self.incremental)
            self._subscriptions[request.type_url] = subscription
            self._lean()
        return subscription.receive(request)

    def next_response(self, resources: ResourceSet) -> Response | None:
        """What is to be sent now, to be called until it is `None`: then again after a request or other resources."""
        self._lean()
        for subscription in self._subscriptions.values():
            subscription.follow(resources.of(subscription.type_url))
        return self._make(resources) or self._break()

    @property
    def held(self) -> bool:
        """Whether something is owed that waits for an answer of the client."""
        return any(subscription.owes or subscription.removes for subscription in self._subscriptions.values())

    @property
    def settled(self) -> bool:
        """Whether the client has answered everything that there is."""
        return all(subscription.settled for subscription in self._subscriptions.values())

    def let_go(self) -> None:
        """Wait no longer for the answers that are missing."""
        for subscription in self._subscriptions.values():
            subscription.let_go()

    def _make(self, resources: ResourceSet) -> Response | None:
        for subscription in sorted(self._subscriptions.values(), key=lambda each: _MADE.get(each.type_url, -1)):
            if not subscription.owes or subscription.unanswered or self._waits(subscription.type_url):
                continue
            response = subscription.make(self._nonce(), removing=not self.aggregated)
            if subscription.type_url == CLUSTER and self.aggregated:
                self._warming = resources.of(ENDPOINTS)
                self._warm(subscription)
            return response
        return None

    def _break(self) -> Response | None:
        subscriptions = self._subscriptions.values()
        if not any(subscription.removes for subscription in subscriptions):
            return None
        if any(subscription.owes or subscription.unanswered for subscription in subscriptions):
            return None
        for subscription in sorted(subscriptions, key=lambda each: _BROKEN.get(each.type_url, len(_BROKEN))):
            if subscription.removes and not self._is_used(subscription.type_url):
                return subscription.unmake(self._nonce())
        return None

    def _waits(self, type_url: str) -> bool:
        if not self.aggregated:
            return False
        before = (self._subscriptions.get(each) for each in WAITS_FOR.get(type_url, ()))
        return any(each is not None and (each.owes or each.unanswered) for each in before)

    def _is_used(self, type_url: str) -> bool:
        if not self.aggregated or type_url not in (CLUSTER, ENDPOINTS):
            return False
        referring = (self._subscriptions.get(each) for each in _REFERRING)
        return any(each is not None and each.refusals for each in referring)

    def _lean(self) -> None:
        """Keep the endpoints of clusters that the client is still warming, even if they are gone meanwhile."""
        clusters, endpoints = self._subscriptions.get(CLUSTER), self._subscriptions.get(ENDPOINTS)
        if clusters is None or clusters.in_flight is None:
            self._warming = None
        if endpoints is not None:
            endpoints.lean_on(self._warming)

    def _warm(self, clusters: Subscription) -> None:
        """Owe the endpoints of clusters that were sent: Envoy warms a changed cluster with a response after it."""
        endpoints = self._subscriptions.get(ENDPOINTS)
        if endpoints is None or clusters.in_flight is None:
            return
        for resource in clusters.in_flight.news:
            if resource.endpoints:
                endpoints.owe_again(resource.endpoints)

    def _nonce(self) -> str:
        self._sent += 1
        return str(self._sent)
