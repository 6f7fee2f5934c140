"""What is known of the requests to each endpoint, told by gateways and by clients that balance by themselves.

Endpoints are told apart by address and port, so one that serves several clusters has one load. Bounded: those that
nobody has asked for in the longest time are forgotten first.
"""

from collections import OrderedDict, deque
from typing import Final

from toska_common.balancing import LatencyAverage
from toska_common.contracts.routing import Endpoint
from toska_common.contracts.selection import EndpointFigures, Outcome

UNREPORTED_S: Final = 30.0
"""After so long a request that was selected and never reported is taken to have ended."""
STALE_S: Final = 60.0
"""After so long without a report what a gateway said to have in flight is forgotten."""
MAX_UNREPORTED: Final = 10_000
MAX_ENDPOINTS: Final = 200_000

Place = tuple[str, int]


class Figures:
    """One endpoint's."""

    __slots__ = ("_timed", "_told", "_unreported", "failures", "latency", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.seconds = 0.0
        self._timed = 0
        self.latency = LatencyAverage()
        self._unreported: deque[float] = deque(maxlen=MAX_UNREPORTED)
        self._told: dict[str, tuple[int, float]] = {}

    def in_flight(self, now: float) -> int:
        """How many requests there are at `now` (monotonic seconds)."""
        waiting = self._unreported
        while waiting and waiting[0] <= now - UNREPORTED_S:
            waiting.popleft()
        return len(waiting) + sum(count for count, at in self._told.values() if at > now - STALE_S)

    def selected(self, now: float) -> None:
        """A client was sent here."""
        self._unreported.append(now)

    def report(self, reporter: str, outcome: Outcome, now: float) -> None:
        """Take what came of requests."""
        self.requests += outcome.requests
        self.failures += outcome.failures
        self.seconds += outcome.seconds
        self._timed += outcome.requests
        if outcome.requests:
            self.latency.observe(outcome.seconds / outcome.requests, now)
        if outcome.in_flight is None:
            for _ in range(min(outcome.requests, len(self._unreported))):
                self._unreported.popleft()
            return
        self._tell(reporter, outcome.in_flight, now)

    def count(self, reporter: str, requests: int, failures: int, in_flight: int, now: float) -> None:
        """Take what came of requests of which nobody says how long they took."""
        self.requests += requests
        self.failures += failures
        self._tell(reporter, in_flight, now)

    def show(self, now: float) -> EndpointFigures:
        """As they are told."""
        known = self._timed > 0
        return EndpointFigures(
            requests=self.requests,
            failures=self.failures,
            in_flight=self.in_flight(now),
            latency_seconds=self.latency.expect(now) if known else None,
            mean_seconds=self.seconds / self._timed if known else None,
        )

    def _tell(self, reporter: str, in_flight: int, now: float) -> None:
        self._told[reporter] = in_flight, now
        self._told = {name: told for name, told in self._told.items() if told[1] > now - STALE_S}


class FiguresBook:
    """Those of all endpoints."""

    def __init__(self) -> None:
        self._known: OrderedDict[Place, Figures] = OrderedDict()

    def of(self, endpoint: Endpoint) -> Figures:
        """The figures of an endpoint."""
        place = endpoint.address, endpoint.port
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = Figures()
            if len(self._known) > MAX_ENDPOINTS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(place)
        return found
