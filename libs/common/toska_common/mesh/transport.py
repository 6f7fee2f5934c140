"""How a call to a service travels: endpoint, circuit, attempt, and another endpoint if that failed.

Retried is what cannot have had an effect twice: any method when the connection was refused, and the idempotent ones
(RFC 9110 §9.2.2; others with an `Idempotency-Key`) when it broke before the response began. A slow answer is not
retried, since a second request would make the upstream slower still; nor is an answer, whatever its status.

A circuit counts as failures what speaks against the instance: refused and broken connections, time-outs, 502, 503, 504.
A 500 does not; it is as a rule about the request.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import anyio
import httpx
import structlog
from tenacity import AsyncRetrying, RetryCallState
from tenacity.wait import wait_random_exponential

from toska_common import telemetry, trace
from toska_common.http_context import CALLER_HEADER, DEADLINE_HEADER, remaining_s
from toska_common.mesh.budget import RetryBudget
from toska_common.mesh.endpoints import Endpoint, Endpoints
from toska_common.mesh.errors import (
    AllCircuitsOpen,
    CallBroken,
    CallTimeout,
    ConnectFailed,
    DeadlineExceeded,
    NoEndpoints,
)
from toska_common.mesh.outbound import Outbound
from toska_common.mesh.pool import ConnectionPool, translated

log = structlog.get_logger(__name__)

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
FAILURE_STATUSES = frozenset({502, 503, 504})
FAILURES = (ConnectFailed, CallBroken, CallTimeout)


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How calls to a service are made.

    Attributes:
        attempts: Upper bound, the first one included.
        backoff_base_s: Upper bound of the random pause before the second attempt; it doubles with each.
        backoff_max_s: Where it stops to double.
    """

    attempts: int = 3
    backoff_base_s: float = 0.025
    backoff_max_s: float = 0.25


class MeshTransport(httpx.AsyncBaseTransport):
    """httpx's transport to one service, by name."""

    def __init__(self, service: str, outbound: Outbound, policy: CallPolicy) -> None:
        self._service = service
        self._outbound = outbound
        self._policy = policy
        self._budget = RetryBudget()
        self._backoff = wait_random_exponential(multiplier=policy.backoff_base_s, max=policy.backoff_max_s)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != self._service or request.url.scheme != "http":
            raise httpx.UnsupportedProtocol(
                f"this client calls http://{self._service} only, not {request.url.scheme}://{request.url.host}"
            )
        begun = time.perf_counter()
        outcome = "error"
        try:
            with telemetry.client_span(self._outbound.tracer, request.method, self._service):
                self._sign(request)
                response = await self._call(request)
            outcome = str(response.status_code)
        finally:
            self._outbound.metrics.observe(self._service, outcome, time.perf_counter() - begun)
        return response

    def _sign(self, request: httpx.Request) -> None:
        request.headers[CALLER_HEADER] = self._outbound.caller
        telemetry.inject(request.headers)
        context = trace.current.get() or trace.new_trace()
        if "traceparent" not in request.headers:
            request.headers["traceparent"] = context.traceparent
            if context.tracestate:
                request.headers["tracestate"] = context.tracestate

    async def _call(self, request: httpx.Request) -> httpx.Response:
        left = remaining_s()
        ways = self._outbound.ways()
        endpoints = await ways.resolver.find(self._service, 60.0 if left is None else max(0.0, left))
        call = _Call(self._service, request, endpoints, ways.pool, self._policy, self._budget)
        self._budget.earn()
        try:
            return await call.attempt()
        except (ConnectFailed, CallBroken) as error:
            return await self._retry(call, error)

    async def _retry(self, call: "_Call", error: Exception) -> httpx.Response:
        # Tenacity costs 50 µs a call, so it comes in only when there is something to retry; the failure that brought it
        # in counts as its first attempt.
        failures = [error]

        async def attempt() -> httpx.Response:
            if failures:
                raise failures.pop()
            return await call.attempt()

        retrying = AsyncRetrying(
            retry=call.may_retry,
            stop=call.must_stop,
            wait=self._backoff,
            before_sleep=self._note_retry,
            sleep=anyio.sleep,
            reraise=True,
        )
        return await retrying(attempt)

    def _note_retry(self, state: RetryCallState) -> None:
        self._outbound.metrics.count_retry(self._service)
        error = None if state.outcome is None else state.outcome.exception()
        log.info("call_retried", upstream=self._service, attempt=state.attempt_number, reason=str(error))


class _Call:
    """One call and its attempts."""

    def __init__(
        self,
        service: str,
        request: httpx.Request,
        endpoints: Endpoints,
        pool: ConnectionPool,
        policy: CallPolicy,
        budget: RetryBudget,
    ) -> None:
        self._service = service
        self._request = request
        self._endpoints = endpoints
        self._pool = pool
        self._policy = policy
        self._budget = budget
        self._tried: list[Endpoint] = []

    def may_retry(self, state: RetryCallState) -> bool:
        """Whether another attempt is safe (tenacity's `retry`)."""
        error = None if state.outcome is None else state.outcome.exception()
        if isinstance(error, ConnectFailed):
            return True
        return isinstance(error, CallBroken) and _is_repeatable(self._request)

    def must_stop(self, state: RetryCallState) -> bool:
        """Whether there have been enough attempts (tenacity's `stop`)."""
        left = remaining_s()
        out_of_time = left is not None and left <= 0
        return state.attempt_number >= self._policy.attempts or out_of_time or not self._budget.spend()

    async def attempt(self) -> httpx.Response:
        """Send the request to one endpoint and report to its circuit how that went."""
        left = remaining_s()
        if left is not None and left <= 0:
            raise self._lateness()
        now = time.monotonic()
        endpoint = self._endpoints.pick(now, self._tried)
        if endpoint is None:
            raise self._refusal(now)
        self._tried.append(endpoint)
        permit = endpoint.breaker.admit(now)
        endpoint.in_flight += 1
        try:
            response = await self._send(endpoint)
        except BaseException as error:
            endpoint.in_flight -= 1
            if isinstance(error, FAILURES):
                endpoint.breaker.fail(permit, time.monotonic())
                if isinstance(error, ConnectFailed):
                    endpoint.eject(time.monotonic())
            else:
                endpoint.breaker.cancel(permit)
            raise
        report = endpoint.breaker.fail if response.status_code in FAILURE_STATUSES else endpoint.breaker.succeed
        report(permit, time.monotonic())
        response.stream = _CountedBody(cast("httpx.AsyncByteStream", response.stream), endpoint)
        return response

    async def _send(self, endpoint: Endpoint) -> httpx.Response:
        left = remaining_s()
        budget_ms = _deadline_ms(left, self._request.extensions.get("timeout", {}).get("read"))
        if budget_ms is not None:
            self._request.headers[DEADLINE_HEADER] = str(budget_ms)
        if left is None:
            return await self._pool.send(self._request, endpoint.address, endpoint.port)
        with anyio.move_on_after(left):
            return await self._pool.send(self._request, endpoint.address, endpoint.port)
        raise self._lateness()

    def _lateness(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the time for this request was over before {self._service} answered", upstream=self._service
        )

    def _refusal(self, now: float) -> Exception:
        if not len(self._endpoints):
            return NoEndpoints(f"no instance of {self._service} is known", upstream=self._service)
        return AllCircuitsOpen(
            f"every instance of {self._service} has failed too often lately",
            upstream=self._service,
            retry_after_s=round(self._endpoints.retry_after_s(now), 3),
        )


class _CountedBody(httpx.AsyncByteStream):
    """A response's body; its endpoint is busy until it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, endpoint: Endpoint) -> None:
        self._stream = stream
        self._endpoint = endpoint
        self._open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with translated(self._where):
            async for chunk in self._stream:
                yield chunk

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._endpoint.in_flight -= 1
        with translated(self._where):
            await self._stream.aclose()

    @property
    def _where(self) -> str:
        return f"{self._endpoint.address}:{self._endpoint.port}"


def _is_repeatable(request: httpx.Request) -> bool:
    replayable = isinstance(request.stream, httpx.ByteStream)  # a generator's bytes are gone once sent
    return replayable and (request.method in IDEMPOTENT or "idempotency-key" in request.headers)


def _deadline_ms(left_s: float | None, read_timeout_s: float | None) -> int | None:
    limits = [limit for limit in (left_s, read_timeout_s) if limit is not None]
    return max(0, round(min(limits) * 1000)) if limits else None
