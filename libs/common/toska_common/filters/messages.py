"""Requests and responses as filters see them, and what a filter can say to them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from toska_common.filters.headers import Headers, Misuse

if TYPE_CHECKING:
    from toska_common.filters.base import BodyFilter

_NO_HEADERS: Mapping[str, str] = {}
_BODILESS: Final = frozenset({204, 205, 304})
_PARTIAL: Final = 206
_TEXT: Final = "text/plain; charset=utf-8"


class Reject(Exception):
    """Refuse the request: answered as a problem document with this status and detail.

    Args:
        status: From 400 to 599.
        detail: Told to the caller, as it stands here.
        headers: Further fields of the answer, such as WWW-Authenticate.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        if not 400 <= status <= 599:
            raise Misuse(f"{status} refuses nothing: give a status from 400 to 599")
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = Headers(headers)


class Answer:
    """Answer the request directly; nothing is asked of the upstream, or what it answered is dropped.

    Args:
        body: Text goes as UTF-8.
        status: From 200 to 599.
        content_type: Of the body.
        headers: Further fields.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: str | bytes = b"",
        *,
        status: int = 200,
        content_type: str = _TEXT,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        self.body = body.encode() if isinstance(body, str) else body
        if not 200 <= status <= 599:
            raise Misuse(f"{status} is no status of an answer")
        if self.body and status in _BODILESS:
            raise Misuse(f"an answer with status {status} has no body")
        self.status = status
        self.content_type = Headers({"content-type": content_type})["content-type"]  # (checked by that)
        self.headers = Headers(headers)
        if "content-type" in self.headers:
            raise Misuse("an answer's content-type is given by content_type")


class Request:
    """A request that a route has taken. Its headers can be changed, and its body as it passes.

    Attributes:
        method: In capitals.
        path: Decoded and in normal form, as routes see it.
        query: As it came, without its question mark.
        host: As the client asked for it, perhaps with a port.
        client: The client's address, behind trusted proxies too.
        route: Name of the route.
        claims: Of the token that `auth` has verified, or `None`.
        headers: Its fields.
        state: What filters note about this request, for their other hooks and for each other.
        variant: What the route's cache tells responses apart by, beside the URL. Whoever has the upstream answer one
            client otherwise than another, by a header that it sets, says here how; else it is the upstream's `Vary`
            that has to.
    """

    __slots__ = (
        "_state", "body_filters", "claims", "client", "headers", "host", "method", "path", "query", "route", "variant",
    )  # fmt: skip

    def __init__(
        self,
        method: str = "GET",
        path: str = "/",
        query: str = "",
        host: str = "",
        client: str = "",
        route: str = "",
        claims: Mapping[str, Any] | None = None,
        headers: Headers | Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.host = host
        self.client = client
        self.route = route
        self.claims = claims
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.variant = ""
        self.body_filters: list[BodyFilter] | None = None
        self._state: dict[str, Any] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """What filters note about this request."""
        if self._state is None:
            self._state = {}
        return self._state

    def filter_body(self, body_filter: "BodyFilter") -> None:
        """Have the body changed on its way to the upstream; it is sent chunked then."""
        if self.body_filters is None:
            self.body_filters = []
        self.body_filters.append(body_filter)


class Response:
    """An upstream's response whose head has come. Its headers can be changed, and its body as it passes.

    Attributes:
        status: As the upstream sent it.
        headers: Its fields.
        request: What it answers, as it was sent to the upstream.
    """

    __slots__ = ("body_filters", "headers", "request", "status")

    def __init__(
        self, status: int = 200, *, headers: Headers | Mapping[str, str] = _NO_HEADERS, request: Request | None = None
    ) -> None:
        self.status = status
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.request = request or Request()
        self.body_filters: list[BodyFilter] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """What filters noted about the request."""
        return self.request.state

    def filter_body(self, body_filter: "BodyFilter") -> None:
        """Have the body changed on its way to the client; its length and digests are not told then.

        Raises:
            Misuse: It is a part of a body (206), which nobody can tell words across its bounds of. Take Range out of
                the request.
        """
        if self.status == _PARTIAL:
            raise Misuse("a part of a body (206) is not filtered; remove the request's range in on_request")
        if self.body_filters is None:
            self.body_filters = []
        self.body_filters.append(body_filter)
