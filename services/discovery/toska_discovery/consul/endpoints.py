"""What every endpoint of the API stands on: the registry it shows, and blocking queries."""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from toska_discovery.consul.answers import Answers
from toska_discovery.consul.request import CLOSE, CallerGone, ConsulRequest, Header, Refusal, Reply
from toska_discovery.consul.rules import RegistrationRules
from toska_discovery.consul.views import Node
from toska_discovery.embedded import EmbeddedRegistry
from toska_discovery.watch import Woken

Handler = Callable[["Endpoints", ConsulRequest], Awaitable[Reply]]

JITTER = 1 / 16
"""Consul lets a blocked query wait up to this part longer, so that its watchers do not come back all at once."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What handlers are given: the open registry, its node, and the rules for registrations.

    Attributes:
        opened_at: When the registry began to answer.
        acl: Whether every request needs a token.
    """

    registry: EmbeddedRegistry
    node: Node
    answers: Answers
    rules: RegistrationRules
    opened_at: datetime
    acl: bool = False

    async def changed(self, request: ConsulRequest, topics: Sequence[str], index_now: Callable[[], int]) -> int:
        """Return the index to answer with, after blocking until it is past the request's `index`, if it has one.

        Raises:
            Refusal: A parameter is wrong, too many are blocked, or the registry is stopping.
            CallerGone: The caller hung up while it was blocked.
        """
        query = request.query
        seen, wait_s = query.index, query.wait_s
        _check_consistency(request)
        if seen and index_now() <= seen:
            await self._wait(request, topics, wait_s, lambda: index_now() > seen)
        return index_now()

    async def changed_content(
        self, request: ConsulRequest, topics: Sequence[str], hash_now: Callable[[], str | None]
    ) -> None:
        """Block until a content is another than the request's `hash`, if it has one, or is gone.

        Raises:
            Refusal: A parameter is wrong, too many are blocked, or the registry is stopping.
            CallerGone: The caller hung up while it was blocked.
        """
        seen, wait_s = request.query.first("hash"), request.query.wait_s
        if seen and hash_now() == seen:
            await self._wait(request, topics, wait_s, lambda: hash_now() != seen)

    async def changed_stamp(self, request: ConsulRequest, topics: Sequence[str], stamp_now: Callable[[], int]) -> None:
        """Block until a stamp, which is no number that grows, is another than the request's `index`, if it has one.

        Raises:
            Refusal: A parameter is wrong, too many are blocked, or the registry is stopping.
            CallerGone: The caller hung up while it was blocked.
        """
        seen, wait_s = request.query.index, request.query.wait_s
        if seen and stamp_now() == seen:
            await self._wait(request, topics, wait_s, lambda: stamp_now() != seen)

    async def _wait(
        self, request: ConsulRequest, topics: Sequence[str], wait_s: float, is_over: Callable[[], bool]
    ) -> None:
        watchers = self.registry.watchers
        if watchers.stopping:
            raise Refusal(503, "The registry is stopping", (CLOSE,))
        if watchers.full:
            raise Refusal(429, "Too many blocked queries; raise TOSKA_DISCOVERY_MAX_WATCHERS")
        # Spreads the watchers' returns and guards nothing.
        deadline = time.monotonic() + wait_s * (1 + random.random() * JITTER)  # noqa: S311
        while not is_over():
            woken = await watchers.wait(topics, max(0.0, deadline - time.monotonic()), request.receive)
            if woken is Woken.GONE:
                raise CallerGone
            if woken is not Woken.CHANGED:
                break


def refuse_other_datacenter(here: Endpoints, request: ConsulRequest) -> None:
    """Let a request pass that is about the datacenter there is.

    Raises:
        Refusal: It names another.
    """
    datacenter = request.query.first("dc")
    if datacenter and datacenter != here.node.datacenter:
        raise Refusal(500, "No path to datacenter")


def index_headers(index: int, *, catalog: bool = True, stale: bool = False) -> tuple[Header, ...]:
    """The headers of a read; the catalog's also say how consistent it was."""
    headers = (
        (b"x-consul-index", str(max(1, index)).encode()),
        (b"x-consul-knownleader", b"true"),
        (b"x-consul-lastcontact", b"0"),
    )
    if not catalog:
        return headers
    return ((b"x-consul-effective-consistency", b"stale" if stale else b"leader"), *headers)


def _check_consistency(request: ConsulRequest) -> None:
    # There is one server, so each of Consul's consistency modes reads the same.
    if request.query.has("stale") and request.query.has("consistent"):
        raise Refusal(400, "Cannot specify ?stale with ?consistent, conflicting semantics.")
