"""The filters of a route: a gate that shows them requests, and a shaper that shows them responses.

Requests pass them in the order of the route, responses in the opposite one, so the first sees what the client sees.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from toska_common.filters import Answer, BodyFilter, Headers, Request, Response

from toska_gateway.worker.filters.bodies import FilteredBody
from toska_gateway.worker.filters.places import Place, give
from toska_gateway.worker.filters.waiting import Outcome, Waiting
from toska_gateway.worker.http1 import ResponseHead, forget_bytes
from toska_gateway.worker.policies import Instead, Waits

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage

_BODILESS = frozenset({204, 304})
_Claimed = list[tuple[Place, BodyFilter]]


class Filters:
    """The filters of one route, in order."""

    __slots__ = ("_on_request", "_on_response")

    def __init__(self, places: list[Place]) -> None:
        self._on_request = [(place, place.on_request) for place in places if place.on_request is not None]
        self._on_response = [(place, place.on_response) for place in reversed(places) if place.on_response is not None]

    # -- requests

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        head = exchange.head
        passage.filtered = request = Request(
            head.method.decode(),
            head.path.decode("utf-8", "surrogateescape"),
            head.query[1:].decode("latin-1"),
            head.host.decode("latin-1"),
            exchange.down.forwarding.client(head).decode("latin-1"),
            exchange.route.name,
            # (Tokens that are known share their claims.)
            None if passage.claims is None else MappingProxyType(passage.claims),
            Headers.over(head.parts, head.special),
        )
        return self._enter_from(0, exchange, passage, request)

    def _enter_from(self, at: int, exchange: "Exchange", passage: "Passage", request: Request) -> bool:
        """Show a request to the filters from the one at `at` on; tells whether it goes on now."""
        for place, hook in self._on_request[at:] if at else self._on_request:
            at += 1
            try:
                result = place.call(hook, request)
                if result is None:
                    if request.body_filters is not None:
                        _pass_body(exchange, passage, place, request)
                    continue
                answer = _answer_in(place, result)
            except Instead as instead:
                instead.answer(exchange)
                return False
            if answer is not None:
                give(exchange, answer)
                return False
            decided = partial(self._request_decided, at, place, exchange, passage, request)
            passage.waits_for = Waiting(place, _call_in(result), decided)
            return False
        if request.variant:
            passage.variant += b"\0" + request.variant.encode("utf-8", "surrogatepass")
        if self._on_response:
            # What comes after this is the gateway's own writing, which is not for reading.
            request.headers = Headers.over(list(exchange.head.parts), exchange.head.special)
        return True

    def _request_decided(
        self, at: int, place: Place, exchange: "Exchange", passage: "Passage", request: Request, outcome: Outcome
    ) -> None:
        passage.waits_for = None
        if isinstance(outcome, Instead):
            outcome.answer(exchange)
        elif outcome is not None:
            give(exchange, outcome)
        else:
            if request.body_filters is not None:
                _pass_body(exchange, passage, place, request)
            if self._enter_from(at, exchange, passage, request):
                exchange.pass_on()

    # -- responses

    def shape(self, exchange: "Exchange", head: ResponseHead) -> FilteredBody | None:
        passage = exchange.passage
        if not self._on_response or passage is None or passage.filtered is None:
            return None
        response = Response(head.status, headers=Headers.over(head.parts, head.special), request=passage.filtered)
        return _WayBack(self._on_response, exchange, passage, head, response).go_on()


class _WayBack:
    """A response on its way past the filters."""

    __slots__ = ("_at", "_claimed", "_exchange", "_head", "_hooks", "_passage", "_response")

    def __init__(
        self,
        hooks: Sequence[tuple[Place, Callable[[Response], object]]],
        exchange: "Exchange",
        passage: "Passage",
        head: ResponseHead,
        response: Response,
    ) -> None:
        self._hooks = hooks
        self._at = 0
        self._exchange = exchange
        self._passage = passage
        self._head = head
        self._response = response
        self._claimed: _Claimed = []

    def go_on(self) -> FilteredBody | None:
        """Show the response to the filters that are left; returns what its body passes through.

        Raises:
            Instead: Something else is to be answered.
            Waits: One of them has not decided yet.
        """
        for place, hook in self._hooks[self._at :]:
            self._at += 1
            result = place.call(hook, self._response)
            if result is None:
                _claim(place, self._response, self._claimed)
                continue
            answer = _answer_in(place, result)
            if answer is not None:
                raise _giving(answer)
            self._passage.waits_for = Waiting(place, _call_in(result), partial(self._decided, place))
            raise Waits
        return self._filtered_body()

    def _decided(self, place: Place, outcome: Outcome) -> None:
        self._passage.waits_for = None
        try:
            if isinstance(outcome, Instead):
                raise outcome
            if outcome is not None:
                raise _giving(outcome)
            _claim(place, self._response, self._claimed)
            stage = self.go_on()
        except Waits:
            return
        except Instead as instead:
            instead.answer(self._exchange)
            return
        self._exchange.shape_on(stage)

    def _filtered_body(self) -> FilteredBody | None:
        if not self._claimed:
            return None
        head = self._head
        forget_bytes(head.parts)
        if self._exchange.is_head or head.status in _BODILESS:
            head.special.pop(b"content-length", None)  # there is no body that could be filtered, nor a length to tell
            return None
        return FilteredBody(self._claimed)


def _answer_in(place: Place, result: object) -> Answer | None:
    """The answer that a hook returned; `None` if it waits.

    Raises:
        Instead: It returned neither.
    """
    if isinstance(result, Answer):
        return result
    if isinstance(result, Awaitable):
        return None
    raise place.answered_wrongly(result)


def _call_in(result: object) -> Awaitable[object]:
    return cast("Awaitable[object]", result)  # else it was an answer, or refused


def _giving(answer: Answer) -> Instead:
    return Instead(partial(give, answer=answer))


def _pass_body(exchange: "Exchange", passage: "Passage", place: Place, request: Request) -> None:
    """Have a request's body, if it has one, pass through what a filter asks for."""
    claimed: _Claimed = []
    _claim(place, request, claimed)
    if exchange.head.body_length:
        forget_bytes(exchange.head.parts)
        passage.stages.append(FilteredBody(claimed))


def _claim(place: Place, message: Request | Response, claimed: _Claimed) -> None:
    if message.body_filters is not None:
        claimed += [(place, body_filter) for body_filter in message.body_filters]
        message.body_filters = None
