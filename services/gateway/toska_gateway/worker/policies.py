"""A route's policies, compiled: gates that a request passes, shapers that its response passes.

    request ──▶ gates, in order ──▶ cluster ──▶ endpoint
    client  ◀── shapers, in order ◀── response

A policy is compiled once for each route and worker. A route without any pays one comparison a request for all of them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast, runtime_checkable

from toska_gateway.worker.edge.access import HttpsRequired, IpRules
from toska_gateway.worker.edge.cors import Cors
from toska_gateway.worker.edge.faults import Faults
from toska_gateway.worker.edge.mirror import Mirror
from toska_gateway.worker.edge.security import SecurityHeaders
from toska_gateway.worker.edge.versions import Versions
from toska_gateway.worker.edge.watch import Watch
from toska_gateway.worker.rate_limits import compile_rate_limits

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.http1 import ResponseHead
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane


@runtime_checkable
class Gate(Protocol):
    """Decides whether a request goes on."""

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Let the request go on (true); or answer it, now or later (false).

        A gate that cannot decide at once sets `passage.waits_for` to what can be cancelled, and calls
        `exchange.pass_on()` or one of its answers when it has decided. What comes of the body meanwhile is held.
        """
        ...


class BodyStage(Protocol):
    """What a body passes through, piece by piece.

    Attributes:
        resizes: Whether what comes out may be of another length than what went in.
    """

    resizes: bool

    def feed(self, payload: bytes) -> bytes:
        """What the next piece becomes; nothing, if it is kept for later.

        Raises:
            Instead: It must not be passed on.
        """
        ...

    def finish(self) -> bytes:
        """The body is whole: what is left of it.

        Raises:
            Instead: It must not be passed on.
        """
        ...

    def abort(self) -> None:
        """The body was cut off: there will be no more of it."""
        ...


@runtime_checkable
class Shaper(Protocol):
    """Changes responses."""

    def shape(self, exchange: "Exchange", head: "ResponseHead") -> BodyStage | None:
        """Change the response's head in place; returns what its body passes through, if it does.

        Raises:
            Instead: Something else is to be answered.
            Waits: It cannot decide at once; it will call `exchange.shape_on()` or one of the exchange's answers, and
                `passage.waits_for` is what can be cancelled.
        """
        ...


class Waits(Exception):
    """A shaper cannot decide at once."""


class Instead(Exception):
    """Raised by a shaper or a stage: answer something else, or break off what is being answered already.

    Args:
        answer: Answers, with the exchange's own `fail` or `answer`.
    """

    def __init__(self, answer: "Callable[[Exchange], None]") -> None:
        super().__init__()
        self.answer = answer


class Cancellable(Protocol):
    """Something under way: a timer, a future, a request of ours."""

    def cancel(self) -> object:
        """End it without an outcome."""
        ...


Factory = Callable[[Any, str, "Plane"], object]
"""Makes a compiled policy of its settings in plain data, the route's name and what connections share.

Raises:
    ValueError: The settings cannot be served, and why.
"""


def _compress(settings: Any, route: str, plane: "Plane") -> object:
    from toska_gateway.worker.compression import Compress  # here: only for those who compress

    return Compress(settings, route, plane)


def _auth(settings: dict[str, Any], route: str, plane: "Plane") -> object:
    from toska_gateway.worker.auth.gate import build_gate  # here: 40 ms to import, which only its routes pay

    return build_gate(settings, route, plane)


def _cache(settings: Any, route: str, plane: "Plane") -> object:
    # Here, so that only those workers load it that have something to keep.
    from toska_gateway.worker.cache.policy import CachePolicy

    return CachePolicy(settings, route, plane)


def _as_made(settings: object, route: str, plane: "Plane") -> object:
    return settings  # it is no policy of its own: the route has made it, of its clusters


def _filters(settings: Any, route: str, plane: "Plane") -> object:
    if plane.filters_folder is None:
        return None  # rehearsed in the parent, which runs no code of operators
    from toska_gateway.worker.filters.shelf import compile_filters

    return compile_filters(settings, route, plane, plane.filters_folder)


_FACTORIES: Final[dict[str, Factory]] = {
    "cache": _cache,
    "compress": _compress,
    "cors": Cors,
    "fault": Faults,
    "filters": _filters,
    "ip": IpRules,
    "mirror": Mirror,
    "auth": _auth,
    "rate_limit": compile_rate_limits,
    "require_https": HttpsRequired,
    "security_headers": SecurityHeaders,
    "sticky": _as_made,
    "versions": Versions,
    "watch": Watch,
}
_GATES: Final = (
    "security_headers",
    "ip",
    "require_https",
    "cors",
    "versions",
    "auth",
    "sticky",
    "rate_limit",
    "fault",
    "mirror",
    "compress",
    "witness",
    "filters",
    "cache",
    "watch",
)
"""Cheap refusals first; who asks is known before it is counted, and counted before anything is done for them.

Compression only notes what the client takes, before filters can change that, and the cache's witness who it says it is.
"""
_SHAPERS: Final = ("cache", "filters", "compress", "versions", "security_headers", "cors")
"""What is kept is what the upstream said; what is compressed is what the filters made of it."""


class CompiledPolicies:
    """The policies of one route.

    Attributes:
        gates: In order.
        shapers: In order, for responses of an upstream.
        late_shapers: Those of them that a response out of the cache passes.
    """

    __slots__ = ("gates", "late_shapers", "shapers")

    def __init__(self, policies: dict[str, Any], route: str, plane: "Plane") -> None:
        made = {
            name: make(policies[name], route, plane)
            for name, make in _FACTORIES.items()
            if policies.get(name) not in (None, (), [], {}, False)
        }
        if "cache" in made and "filters" in made:
            from toska_gateway.worker.cache.policy import Witness

            made["witness"] = Witness()
        self.gates: tuple[Gate, ...] = tuple(_those(made, _GATES, Gate))
        self.shapers: tuple[Shaper, ...] = tuple(_those(made, _SHAPERS, Shaper))
        late = _SHAPERS[_SHAPERS.index("cache") + 1 :]
        self.late_shapers: tuple[Shaper, ...] = tuple(_those(made, late, Shaper))


_Kind = TypeVar("_Kind")


def _those(made: dict[str, object], order: Iterable[str], kind: type[_Kind]) -> Iterable[_Kind]:
    # To look whether it is there first is quicker by far: an instance check against a protocol takes 7 µs.
    return (cast("_Kind", made[name]) for name in order if name in made and isinstance(made[name], kind))


def through(stages: Sequence[BodyStage], payload: bytes) -> bytes:
    """What a piece of a body becomes on its way through `stages`."""
    for stage in stages:
        if not payload:
            break
        payload = stage.feed(payload)
    return payload


def end_of(stages: Sequence[BodyStage]) -> bytes:
    """What `stages` still hold of a body that is whole."""
    rest = b""
    for stage in stages:
        rest = (stage.feed(rest) if rest else b"") + stage.finish()
    return rest
