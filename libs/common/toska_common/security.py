"""Who may use a management listener: known Host names, and a token for every change.

Both are pure ASGI, stand in front of the whole app, and so also cover what a framework answers by itself. Reads are
open on loopback only; where a route needs less than `admin` for a change, the app names it in `join_paths`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toska_common.credentials import Access, Credentials, bearer_token
from toska_common.errors import BodyTooLarge, Forbidden, MeshError, MisdirectedRequest, Unauthenticated
from toska_common.problem import send_problem

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC_PATHS = re.compile(r"/health(/live|/ready|/startup)?")
"""Probes of an orchestrator carry no token and tell nothing but a state."""

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


@dataclass(frozen=True, slots=True)
class ManagementPolicy:
    """The rules of one management listener.

    Attributes:
        credentials: The tokens that it accepts.
        host: The address it is bound to.
        allowed_hosts: Further names it answers to, without ports.
        join_access: Tells whether `(method, path)` is a change that the join token suffices for.
        read_paths: Paths where a POST asks and changes nothing: a query too large for a URL.
        max_body_bytes: Of a request; what is larger is refused before it takes memory.
    """

    credentials: Credentials
    host: str = "127.0.0.1"
    allowed_hosts: frozenset[str] = frozenset()
    join_access: Callable[[str, str], bool] = lambda _method, _path: False
    read_paths: frozenset[str] = frozenset()
    max_body_bytes: int = 33 * 2**20

    @property
    def open_reads(self) -> bool:
        """Whether reads need no token: only where nobody but this machine can connect."""
        return is_loopback(self.host)

    def answers_to(self, host_header: str) -> bool:
        """Whether a Host header names this listener; the port is not compared, it may have been forwarded."""
        name = host_header.rsplit(":", 1)[0] if re.search(r":\d+$", host_header) else host_header
        name = name.lower().rstrip(".")
        return name in _LOOPBACK_NAMES or name.strip("[]") == self.host or name in self.allowed_hosts

    def needed(self, method: str, path: str, *, forwarded_for: str = "") -> Access | None:
        """The access that a request needs; `None` if it is open.

        `forwarded_for` is its `X-Forwarded-For`: a gateway on this machine may bring requests from elsewhere.
        """
        if PUBLIC_PATHS.fullmatch(path) and method in SAFE_METHODS:
            return None
        if method in SAFE_METHODS or (method == "POST" and path in self.read_paths):
            callers = [caller.strip() for caller in forwarded_for.split(",") if caller.strip()]
            return None if self.open_reads and all(map(is_loopback, callers)) else Access.ADMIN
        return Access.JOIN if self.join_access(method, path) else Access.ADMIN


class ManagementGuard:
    """ASGI middleware that holds a listener to its `ManagementPolicy`, answering problem documents."""

    def __init__(self, app: ASGIApp, policy: ManagementPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            access = self._check(scope)
        except MeshError as error:
            await send_problem(error, scope, receive, send)
            return
        scope.setdefault("state", {})["access"] = access
        await self._app(scope, _bounded(receive, self._policy.max_body_bytes), send)

    def _check(self, scope: Scope) -> Access | None:
        headers = Headers(scope=scope)
        if not self._policy.answers_to(headers.get("host", "")):
            raise MisdirectedRequest(
                "this listener does not answer to that Host name; add it to TOSKA_ALLOWED_HOSTS if it should"
            )
        token = bearer_token(headers.get("authorization"))
        forwarded_for = ",".join(headers.getlist("x-forwarded-for"))
        needed = self._policy.needed(scope.get("method", "GET"), scope["path"], forwarded_for=forwarded_for)
        if needed is not None:
            self._policy.credentials.require(token, needed)
        if scope["type"] == "websocket" and not (token and self._policy.credentials.access_of(token)):
            _require_same_origin(headers)
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._policy.max_body_bytes:
            raise BodyTooLarge(_too_large(self._policy.max_body_bytes))
        return self._policy.credentials.access_of(token) if token else None


def _bounded(receive: Receive, at_most: int) -> Receive:
    """Count the bytes of a body that came without its length."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > at_most:
            # The framework's own, since it takes any other error while it reads a body for one of the body's form.
            raise HTTPException(413, _too_large(at_most))
        return message

    return counted


def _require_same_origin(headers: Headers) -> None:
    """Keep other sites' pages out: browsers open WebSockets across origins, and ask nobody (RFC 6455 §10.2).

    Raises:
        Forbidden: The page that opens it is of another origin than this listener.
    """
    origin = headers.get("origin")
    if origin is None:
        return
    _, _, place = origin.lower().partition("://")
    if place not in {headers.get(name, "").lower() for name in ("host", "x-forwarded-host")} - {""}:
        raise Forbidden("a page of another origin may open no WebSocket here")


def _too_large(at_most: int) -> str:
    return f"a request has at most {at_most} bytes here"


def require_admin(access: Access | None) -> None:
    """Keep a read to the admin token, on loopback too: what it tells may be secret, or about people.

    Raises:
        Unauthenticated: There is no token.
        Forbidden: It is less.
    """
    if access is None:
        raise Unauthenticated("this needs a token: send Authorization: Bearer <token>", needs="admin")
    if access is not Access.ADMIN:
        raise Forbidden("the join token cannot do this: the admin token is needed", needs="admin")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_names(*groups: Iterable[str]) -> frozenset[str]:
    """Lower-cased Host names for `ManagementPolicy.allowed_hosts`."""
    return frozenset(name.lower().strip() for group in groups for name in group if name.strip())
