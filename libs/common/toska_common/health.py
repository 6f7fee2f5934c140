"""Health endpoints from named checks: is the process alive, has it started, may it get traffic.

    GET /health/live      200 while the process works; the orchestrator restarts what fails it
    GET /health/startup   200 once everything that must be warm has been, and from then on
    GET /health/ready     200 while traffic is welcome: not before startup, not while draining
    GET /health           the same as ready
    GET /health/detailed  every check with its verdict, its time and its reason; for operators

The first four tell a state and nothing else, so a guard may leave them open. A check is any callable, async or not,
that raises or returns `False` when something is wrong; it is given a deadline and can never hang a probe.
"""

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any

import anyio
import structlog
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

log = structlog.get_logger(__name__)

CheckFunction = Callable[[], Awaitable[Any] | Any]

CHECK_TIMEOUT = timedelta(seconds=2)


class Kind(StrEnum):
    """The question that a check answers."""

    LIVE = "live"
    READY = "ready"
    STARTUP = "startup"


class Status(StrEnum):
    """A verdict."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Check:
    """A named check and the question it belongs to."""

    name: str
    function: CheckFunction
    kind: Kind
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found; `reason` says why it is unhealthy."""

    check: Check
    status: Status
    took_ms: float
    reason: str | None = None

    def render(self) -> dict[str, Any]:
        """The component's entry in `/health/detailed`."""
        body: dict[str, Any] = {"status": self.status.value, "kind": self.check.kind.value, "took_ms": self.took_ms}
        return body if self.reason is None else {**body, "reason": self.reason}


@dataclass(slots=True)
class HealthChecks:
    """The checks of one service, and its health endpoints.

    Attributes:
        service: Named in `/health/detailed`.
        version: Shown there as well.
        draining: Set while stopping: readiness fails and everything else goes on.
    """

    service: str
    version: str | None = None
    draining: bool = False
    _checks: dict[str, Check] = field(default_factory=dict[str, Check])
    _started: bool = False
    _last: dict[Kind, Status] = field(default_factory=dict[Kind, Status])
    _opened_at: float = field(default_factory=time.monotonic)

    def add(
        self, name: str, function: CheckFunction, *, kind: Kind = Kind.READY, timeout: timedelta = CHECK_TIMEOUT
    ) -> None:
        """Add a check, or replace the one of that name."""
        self._checks[name] = Check(name, function, kind, timeout)

    def remove(self, name: str) -> None:
        """Take a check away, if it is there."""
        self._checks.pop(name, None)

    async def status(self, kind: Kind) -> Status:
        """Answer one question; a change of the answer is logged with the checks that caused it."""
        if kind is Kind.STARTUP and self._started:
            return Status.HEALTHY
        if kind is Kind.READY and self.draining:
            status, failed = Status.DRAINING, list[Result]()
        else:
            # What has not started is not ready either.
            kinds = {kind} if kind is not Kind.READY or self._started else {kind, Kind.STARTUP}
            results = await self._run(check for check in self._checks.values() if check.kind in kinds)
            failed = [result for result in results if result.status is not Status.HEALTHY]
            status = Status.UNHEALTHY if failed else Status.HEALTHY
        if status is Status.HEALTHY and kind is not Kind.LIVE:
            self._started = True
        self._report(kind, status, failed)
        return status

    async def report(self) -> dict[str, Any]:
        """Every component with its verdict, and the verdict over all."""
        results = await self._run(self._checks.values())
        worst = Status.HEALTHY if all(result.status is Status.HEALTHY for result in results) else Status.UNHEALTHY
        return {
            "service": self.service,
            "version": self.version,
            "status": (Status.DRAINING if self.draining else worst).value,
            "uptime_seconds": round(time.monotonic() - self._opened_at, 3),
            "components": {result.check.name: result.render() for result in results},
        }

    def routes(self) -> list[Route]:
        """The endpoints, for any Starlette or FastAPI app."""
        ready = partial(self._answer, Kind.READY)
        return [
            Route("/health", ready, name="health"),
            Route("/health/live", partial(self._answer, Kind.LIVE), name="health_live"),
            Route("/health/ready", ready, name="health_ready"),
            Route("/health/startup", partial(self._answer, Kind.STARTUP), name="health_startup"),
            Route("/health/detailed", self._answer_detailed, name="health_detailed"),
        ]

    def add_to(self, app: FastAPI) -> None:
        """Give `app` the endpoints, ahead of its own routes and outside its schema."""
        app.router.routes[:0] = self.routes()

    async def _answer(self, kind: Kind, _: Request) -> Response:
        status = await self.status(kind)
        text = "OK" if status is Status.HEALTHY else status.value
        return PlainTextResponse(text, 200 if status is Status.HEALTHY else 503, headers={"cache-control": "no-store"})

    async def _answer_detailed(self, _: Request) -> Response:
        body = await self.report()
        status = 200 if body["status"] == Status.HEALTHY.value else 503
        return JSONResponse(body, status, headers={"cache-control": "no-store"})

    async def _run(self, checks: Iterable[Check]) -> list[Result]:
        results: dict[str, Result] = {}

        async def run(check: Check) -> None:
            results[check.name] = await _run_check(check)

        chosen = list(checks)
        async with anyio.create_task_group() as group:
            for check in chosen:
                group.start_soon(run, check)
        return [results[check.name] for check in chosen]

    def _report(self, kind: Kind, status: Status, failed: list[Result]) -> None:
        before = self._last.get(kind)
        self._last[kind] = status
        if status is before or (before is None and status is Status.HEALTHY):
            return
        # What is not ready when it is asked for the first time is starting, and that is nothing to warn of.
        write = log.warning if status is Status.UNHEALTHY and before is not None else log.info
        write(
            "health_changed",
            kind=kind.value,
            status=status.value,
            failed={result.check.name: result.reason for result in failed},
        )


async def _run_check(check: Check) -> Result:
    begun = time.perf_counter()
    reason: str | None = None
    try:
        with anyio.fail_after(check.timeout.total_seconds()):
            answer = check.function()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is False:
                reason = "the check answered no"
    except TimeoutError:
        reason = f"no answer within {check.timeout.total_seconds():g} s"
    except Exception as error:  # noqa: BLE001 - whatever a check raises is its verdict
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    took_ms = round((time.perf_counter() - begun) * 1000, 3)
    return Result(check, Status.HEALTHY if reason is None else Status.UNHEALTHY, took_ms, reason)
