"""The access log: a line of JSON for each request, put together from parts that are mostly made already.

A line costs its request 2.3 µs by itself, 4 among all else; writing it is another thread's (`log_writer`), given all
lines of a tenth of a second, or 64 KiB of them. What a client says is escaped, so a line is one line and has our
members only, whatever comes. Credentials of the mesh are masked; Authorization and Cookie are never looked at.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from random import random
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from toska_common.clock import now_utc

from toska_gateway.worker.http1 import TOKEN_PREFIX, RequestHead, encode_path, field_name, field_value
from toska_gateway.worker.http1.grammar import remember
from toska_gateway.worker.log_writer import LogWriter

if TYPE_CHECKING:
    from toska_gateway.worker.at_once import AnswersAtOnce
    from toska_gateway.worker.endpoint import Endpoint
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.route import Route

_BATCH_BYTES: Final = 64 * 1024
_MAX_VALUE: Final = 512
"""So much is told of what a client may make as long as it likes."""
_MEMORY: Final = 2048
_PLAIN = re.compile(rb"[\x20\x21\x23-\x5b\x5d-\x7e]*")
"""What stands in a JSON text as it is."""
_TOKEN = re.compile(rb"toska_(?:[a-z]+_)?[A-Za-z0-9_-]{16,}")
_SECRET_PARAMETER = re.compile(
    rb"((?:^|[?&])[^=&]*(?:token|secret|passw|pwd|key|sig|auth|code|session|credential|jwt)[^=&]*=)[^&]+", re.IGNORECASE
)
_MASK: Final = b"***"
_LINE: Final = (
    b'{"time":"%b.%03dZ",%b"method":"%b","host":"%b","path":"%b",%b"status":%d,"bytes_in":%d,"bytes_out":%d,'
    b'"duration_ms":%.3f,"route":%b,%b"request_id":"%b","trace_id":"%b"%b}\n'
)
_UPSTREAM: Final = b'%b"upstream_ms":%.3f,"attempts":%d,'


class LogPolicy:
    """Which requests get a line."""

    __slots__ = ("_errors_always", "_sample", "all")

    def __init__(self, settings: dict[str, Any]) -> None:
        self._sample: float = settings["sample"]
        self._errors_always: bool = settings["errors_always"]
        self.all = self._sample >= 1.0

    def takes(self, status: int, error: str) -> bool:
        """Whether a request with this outcome gets one, where not all do."""
        # (with a status below 400 there is an error if the response was broken off after its head)
        if self._errors_always and (status >= 500 or (error and status < 400)):
            return True
        return random() < self._sample  # noqa: S311 - a sample, no secret


class AccessLog:
    """The log of one worker.

    Args:
        settings: `server.access_log`, as plain data.
        writer: Takes the lines.
    """

    def __init__(self, settings: dict[str, Any], writer: LogWriter) -> None:
        self.settings = settings
        self.writer = writer
        self._policy = LogPolicy(settings)
        self._query: bool = settings["query"]
        self._lines: list[bytes] = []
        self._size = 0
        self._agents: dict[bytes, bytes] = {}
        self._second = 0
        self._date = b""
        self._trouble = ""
        self._offset = now_utc().timestamp() - perf_counter()

    def tell(self, exchange: "Exchange", endpoint: "Endpoint | None", attempts: int, ended: float) -> None:
        """Write the line of an exchange that has ended at `ended`, by `perf_counter`; if it gets one."""
        policy = exchange.route.log_policy or self._policy
        error = exchange.error
        if not policy.all and not policy.takes(exchange.status, error):
            return
        head, down, started = exchange.head, exchange.down, exchange.started
        at = started + self._offset
        second = int(at)
        if second != self._second:
            self._turn(second)
        more = self._agent(head)
        if error:
            more += b',"error":"%b"' % error.encode()
        if exchange.passage is not None and exchange.passage.claims:
            more += _subject(exchange.passage.claims)
        upstream = b""
        if endpoint is not None:
            upstream = _UPSTREAM % (endpoint.log_part or _name(endpoint), exchange.upstream_s * 1e3, attempts)
        trace_id = exchange.trace_id or exchange.known_trace()
        request_id, client = trace_id, down.log_part or _describe(down)
        if down.forwarding.trusted:
            client = _describe(down, head)
            given = head.special.get(b"x-request-id")
            if given is not None:
                request_id = quote(given[0])[1:-1]
        line = _LINE % (
            self._date,
            (at - second) * 1000,
            client,
            head.method,
            head.host,
            encode_path(head.path),
            self._query_of(head) if self._query else b"",
            exchange.status,
            exchange.received,
            exchange.returned,
            (ended - started) * 1e3,
            exchange.route.quoted,
            upstream,
            request_id,
            trace_id,
            more,
        )
        # A look at the whole line would cost it a tenth. Of a head that holds none, only its path might, once decoded.
        self._add(_TOKEN.sub(_MASK, line) if head.holds_token or TOKEN_PREFIX in head.path else line)

    def tell_answer(
        self,
        down: "AnswersAtOnce",
        head: RequestHead | None,
        route: "Route | str",
        status: int,
        error: str,
        size: int,
        trace_id: bytes,
    ) -> None:
        """Write the line of a request that was answered without an exchange.

        Args:
            down: The connection.
            head: What was asked; None: it could not be understood, so its members are empty.
            route: Whose answer it is, or what stands for one.
            status: What was answered.
            error: The problem's code; empty if it was none.
            size: Bytes of the answer's body.
            trace_id: What the answer names.
        """
        policy, name = (
            (self._policy, quote(route.encode())) if isinstance(route, str) else (route.log_policy, route.quoted)
        )
        policy = policy or self._policy
        if not policy.all and not policy.takes(status, error):
            return
        at = now_utc().timestamp()
        self._turn(int(at))
        known = head is not None
        more = self._agent(head) if known else b""
        if error:
            more += b',"error":"%b"' % error.encode()
        line = _LINE % (
            self._date,
            at % 1 * 1000,
            _describe(down, head),
            head.method if known else b"",
            head.host if known else b"",
            encode_path(head.path) if known else b"",
            self._query_of(head) if known and self._query else b"",
            status,
            0,
            size,
            0.0,
            name,
            b"",
            trace_id,
            trace_id,
            more,
        )
        self._add(_TOKEN.sub(_MASK, line))

    def _turn(self, second: int) -> None:
        self._second = second
        self._date = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode("ascii")

    def _agent(self, head: RequestHead) -> bytes:
        """Who says it asks. Lines of heads are known by their bytes, and most clients send what others have sent."""
        agents = self._agents
        for part in head.parts:
            if part in agents:
                return agents[part]
        for part in head.parts[1:]:
            if field_name(part) == b"user-agent":
                told = b',"user_agent":' + quote(field_value(part))
                if len(part) <= _MAX_VALUE:
                    remember(agents, part, told, _MEMORY)
                return told
        return b""

    def _query_of(self, head: RequestHead) -> bytes:
        if not head.query:
            return b""
        return b'"query":%b,' % quote(_SECRET_PARAMETER.sub(rb"\1" + _MASK, head.query[1:]), 8192)

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _BATCH_BYTES:
            self._hand_over()

    # -- batches

    def flush(self) -> int:
        """Hand over what there is, a few times a second; returns how many lines were dropped since the last time."""
        # Requests are timed by a clock that no adjustment moves, so what it is in the world's time is asked anew.
        self._offset = now_utc().timestamp() - perf_counter()
        if self._lines:
            self._hand_over()
        return self.writer.take_dropped()

    def trouble(self) -> str | None:
        """Why lines are being dropped, once for each reason; empty when they are not any more; None: nothing new."""
        trouble = self.writer.problem()
        if trouble == self._trouble:
            return None
        self._trouble = trouble
        return trouble

    def close(self, patience_s: float) -> None:
        """Write what there is, for at most so long."""
        self.flush()
        self.writer.close(patience_s)

    def _hand_over(self) -> None:
        lines, self._lines = self._lines, []
        size, self._size = self._size, 0
        self.writer.put(lines, size)


def quote(value: bytes, limit: int = _MAX_VALUE) -> bytes:
    """A JSON text of what somebody has sent, in ASCII, cut off at `limit` bytes; what is no UTF-8 is replaced."""
    if len(value) > limit:
        value = value[:limit]
    if _PLAIN.fullmatch(value):
        return b'"%b"' % value
    # (DEL is no control character to JSON, and one to a terminal)
    return json.dumps(value.decode("utf-8", "replace")).replace("\x7f", "\\u007f").encode("ascii")


def mask_tokens(value: bytes) -> bytes:
    """Text without the mesh's credentials."""
    return _TOKEN.sub(_MASK, value)


def _subject(claims: Mapping[str, Any]) -> bytes:
    subject = claims.get("sub")
    return b',"subject":' + quote(subject.encode()) if isinstance(subject, str) else b""


def _name(endpoint: "Endpoint") -> bytes:
    """The members that name an endpoint; made once."""
    cluster = endpoint.cluster.name.encode()
    endpoint.log_part = part = b'"cluster":%b,"upstream":%b,' % (quote(cluster), quote(str(endpoint).encode()))
    return part


def _describe(down: "AnswersAtOnce", head: RequestHead | None = None) -> bytes:
    """The members about the client; made once, unless a proxy speaks for many."""
    client = down.peer.encode() if head is None else down.forwarding.client(head)
    part = b'"client":%b,' % quote(client)
    ssl_object = down.transport.get_extra_info("ssl_object")
    if ssl_object is not None:
        part += b'"tls":"%b",' % str(ssl_object.version()).encode()
    if head is None:
        down.log_part = part
    return part
