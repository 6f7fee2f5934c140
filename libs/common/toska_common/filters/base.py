"""What a filter's author writes: a class with the hooks that are needed."""

from collections.abc import Awaitable
from typing import Any

from toska_common.filters.messages import Answer, Request, Response


class Filter:
    """Sees each request of a route before it is sent on, and each response before it is passed back.

    There is one instance for each place in a route and each worker process; it lives as long as the route names it
    with the same settings. What belongs to one request goes into `request.state`.

    A filter that has settings says so by an annotation, with a pydantic model or a dataclass:

        class AddTenant(Filter):
            settings: TenantSettings
    """

    settings: Any

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings

    def on_request(self, request: Request) -> Answer | Awaitable[Answer | None] | None:
        """Change the request, or answer it: return an `Answer`, or raise `Reject`. May be `async def`."""

    def on_response(self, response: Response) -> Answer | Awaitable[Answer | None] | None:
        """Change the response before its head is written, or answer instead of it. May be `async def`."""


class BodyFilter:
    """Changes one body as it passes, in pieces that are cut anywhere; given to `filter_body` of a message.

    What it keeps back until more has come is its own to bound: bodies may have no end.
    """

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the body; return what can be passed on."""
        return chunk

    def finish(self) -> bytes:
        """The body is complete: return the rest. Of a request, `Reject` may still be raised here."""
        return b""

    def abort(self) -> None:
        """The body was broken off: nothing more is passed on."""
