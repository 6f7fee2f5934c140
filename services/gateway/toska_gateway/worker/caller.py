"""What a connection to an endpoint expects of whoever has it opened, and of whoever has it answer a request.

Exchanges are by far the most of them; the others are a rival of an exchange, a health check, and nobody in particular.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from toska_gateway.worker.endpoint import Endpoint
    from toska_gateway.worker.http1 import ResponseHead
    from toska_gateway.worker.spans import Trace
    from toska_gateway.worker.upstream import Upstream


class Opener(Protocol):
    """Has a connection opened."""

    @property
    def trace(self) -> "Trace | None":
        """The spans that it gathers, if it is sampled."""
        ...

    @property
    def connect_timeout(self) -> float:
        """Seconds that it may take."""
        ...

    def wants(self, endpoint: "Endpoint") -> bool:
        """Whether a connection to `endpoint`, just made, is still of use."""
        ...

    def send_on(self, upstream: "Upstream") -> None:
        """Here is the connection."""
        ...

    def connect_failed(self, endpoint: "Endpoint", error: BaseException) -> None:
        """It came to nothing."""
        ...


class Caller:
    """Is told what comes over a connection; as it stands here, it does not listen.

    Attributes:
        is_head: Whether it asked with HEAD, so that the response has no body.
        trace: The spans of what it asks for, if that is sampled.
        upgrading: Whether it asked for another protocol.
    """

    __slots__ = ()

    is_head: bool = False
    trace: "Trace | None" = None
    upgrading: bool = False

    def interim_response(self, head: "ResponseHead") -> None:
        """A 1xx response."""

    def response_head(self, head: "ResponseHead", body: bytes, *, last: bool) -> None:
        """The final response; with its whole body, if that is here already."""

    def response_data(self, payload: bytes) -> None:
        """Payload bytes of the response."""

    def response_complete(self, upstream: "Upstream", *, reusable: bool) -> None:
        """The response has come to its end."""

    def upstream_lost(self, upstream: "Upstream") -> None:
        """The connection broke before that."""

    def upstream_misbehaved(self, upstream: "Upstream", reason: str) -> None:
        """What came is no response; the connection is the caller's to close."""

    def pause_downstream(self) -> None:
        """The upstream takes no more for now."""

    def resume_downstream(self) -> None:
        """The upstream takes bytes again."""

    def start_tunnel(self, upstream: "Upstream", head: "ResponseHead", rest: bytes) -> None:
        """The upstream agreed to switch protocols."""
