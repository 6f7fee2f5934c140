"""What a gateway counts on routes under watch: by cluster and token, each request once, and only what went upstream."""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from os import kill
from typing import Any

import pytest
from toska_common.contracts.routing import Match, Policies, Route, RouteTable, WeightedCluster
from toska_common.contracts.tallies import MAX_TALLIES, CellCounts, Tally
from toska_common.routing.versions import table_version
from toska_gateway.totals import OTHER
from toska_gateway.watches import FORGET_AFTER_S, Watches
from toska_tests.gateways import Gateway, cluster, route, running_gateway, snapshot_of
from toska_tests.ports import free_port
from toska_tests.raw_http import Conversation, Script, ask, connected, get, response, upstream
from toska_tests.waiting import wait_until

TOKEN = "rollout:pay:1:0"
_numbers = itertools.count(1)


def document(*ports: int, policies: dict[str, Any] | None = None, **clusters: Any) -> dict[str, Any]:
    """A split of `old` and `new` on these ports."""
    to = [{"cluster": name, "weight": 1} for name, _ in zip(("old", "new"), ports, strict=False)]
    named = {name: cluster(port) for name, port in zip(("old", "new"), ports, strict=False)}
    return {"clusters": {**named, **clusters}, "routes": [route("pay", to=to, policies=policies or {})]}


@dataclass(frozen=True, slots=True)
class Watched:
    """A gateway whose routes carry a token of their own."""

    gateway: Gateway
    token: str

    async def counted(self) -> Tally:
        """What was counted under it until now."""
        await self.gateway.metrics()  # fetches what workers have counted
        report = self.gateway.supervisor.counted()
        assert report is not None
        return next(tally for tally in report.tallies if tally.token == self.token)


async def watch(gateway: Gateway, document: dict[str, Any]) -> Watched:
    """Put a document in force as a router does that watches its route; under a new token."""
    token = f"rollout:pay:{next(_numbers)}:0"
    snapshot = snapshot_of(document)
    routes = tuple(
        one.model_copy(update={"policies": one.policies.model_copy(update={"watch": token})})
        for one in snapshot.table.routes
    )
    table = snapshot.table.model_copy(update={"routes": routes})
    await gateway.supervisor.apply(snapshot.model_copy(update={"table": table, "routes_version": table_version(table)}))
    return Watched(gateway, token)


async def _silent(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.until_closed()


async def _breaking_off(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")


def _first_failing() -> Script:
    """Fails its first request, on whichever connection it comes."""
    answers = itertools.chain([response(503)], itertools.repeat(response(200)))

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(next(answers))

    return script


@pytest.fixture
async def pair() -> AsyncGenerator[Gateway]:
    async with running_gateway(workers=2) as gateway:
        yield gateway


async def test_requests_are_counted_by_the_cluster_that_they_went_to(gateway: Gateway) -> None:
    async with upstream() as old, upstream(response(500)) as new:
        watched = await watch(gateway, document(old.port, new.port))
        answers = [(await ask(gateway.address, get())).status for _ in range(40)]
        tally = await watched.counted()
    failed = answers.count(500)
    assert 0 < failed < 40
    assert tally.cells["old"].requests == 40 - failed == len(old.requests)
    assert tally.cells["old"].failed == 0
    assert tally.cells["new"].model_copy(update={"buckets": {}}) == CellCounts(
        requests=failed, failed=failed, reasons={"500": failed}
    )
    assert sum(tally.cells["new"].buckets.values()) == failed
    assert (tally.whole.requests, tally.whole.failed) == (40, failed)


async def test_what_was_refused_aborted_or_cached_before_is_not_counted(gateway: Gateway) -> None:
    policies = {
        "fault": {"abort": {"status": 503}, "headers": {"x-chaos": "1"}},
        "ip": {"deny": ["127.0.0.2/32"]},
        "cache": {},
    }
    async with upstream(response(200, "Cache-Control: max-age=60", body=b"kept")) as app:
        watched = await watch(gateway, document(app.port, policies=policies))
        for head in ("x-chaos: 1", "x-chaos: 0", "x-chaos: 0"):
            await ask(gateway.address, get("/", head))
        tally = await watched.counted()
        assert len(app.requests) == 1
    assert tally.cells["old"].requests == 1
    assert (tally.whole.requests, tally.whole.failed, tally.whole.aborted) == (3, 1, 1)


async def test_a_request_that_only_a_fallback_or_a_retry_saved_has_failed(gateway: Gateway) -> None:
    fallback = {"fallback": {"respond": {"status": 200, "body": "soon"}, "on": ["connect"]}, "retry": {"attempts": 1}}
    watched = await watch(gateway, document(free_port(), policies=fallback))
    assert (await ask(gateway.address, get())).status == 200
    assert (await watched.counted()).cells["old"].reasons == {"fallback": 1}

    async with upstream(_first_failing()) as app:
        retry = {"retry": {"attempts": 2, "retry_on": ["503"], "backoff": {"base": "1ms", "max": "1ms"}}}
        watched = await watch(gateway, document(app.port, policies=retry))
        assert (await ask(gateway.address, get())).status == 200
    assert (await watched.counted()).cells["old"].reasons == {"retried": 1}


async def test_an_answer_that_breaks_off_has_failed_and_a_client_that_leaves_has_not(gateway: Gateway) -> None:
    async with upstream(_breaking_off) as app:
        watched = await watch(gateway, document(app.port))
        async with connected(gateway.address) as client:
            await client.send(get())
            with contextlib.suppress(ConnectionResetError):
                await client.to_end()
        assert (await watched.counted()).cells["old"].reasons == {"cut-off": 1}

    async with upstream(_silent) as silent:
        watched = await watch(gateway, document(silent.port))
        async with connected(gateway.address) as client:
            await client.send(get())
            await wait_until(lambda: len(silent.requests) == 1)
            client.reset()
        await gateway.until_quiet()
        cell = (await watched.counted()).cells["old"]
    assert (cell.requests, cell.failed, cell.gone) == (0, 0, 1)


async def test_sums_hold_over_workers_of_which_one_is_killed(pair: Gateway) -> None:
    async with upstream() as app:
        watched = await watch(pair, document(app.port))
        await asyncio.gather(*(ask(pair.address, get()) for _ in range(30)))
        await watched.counted()  # what a killed worker has not told is lost with it
        victim = pair.pids()[0]
        kill(victim, signal.SIGKILL)
        await wait_until(lambda: victim not in pair.pids() and len(pair.pids()) == 2)
        await wait_until(lambda: [one.state for one in pair.supervisor.workers()] == ["running"] * 2)
        await asyncio.gather(*(ask(pair.address, get()) for _ in range(30)))
        assert (await watched.counted()).cells["old"].requests == 60 == len(app.requests)


async def test_each_token_counts_from_nothing_and_a_request_under_way_counts_for_its_own(gateway: Gateway) -> None:
    async with upstream(_silent) as slow, upstream() as app:
        first = await watch(gateway, document(slow.port))
        async with connected(gateway.address) as client:
            await client.send(get())
            await wait_until(lambda: len(slow.requests) == 1)
            second = await watch(gateway, document(app.port))
            await ask(gateway.address, get())
            client.reset()
        await gateway.until_quiet()
        before, after = (await first.counted()).cells["old"], (await second.counted()).cells["old"]
    assert (before.requests, before.gone) == (0, 1)
    assert (after.requests, after.gone) == (1, 0)


async def test_nothing_is_reported_where_nothing_is_watched(pair: Gateway) -> None:
    async with upstream() as app:
        await pair.serve(document(app.port))
        await ask(pair.address, get())
        await pair.metrics()
    assert pair.supervisor.counted() is None


def test_a_token_that_no_route_carries_is_told_of_for_a_while_and_then_forgotten() -> None:
    table = snapshot_of(document(9001)).table
    carrying = table.routes[0].policies.model_copy(update={"watch": TOKEN})
    watched = table.model_copy(update={"routes": (table.routes[0].model_copy(update={"policies": carrying}),)})
    watches = Watches("gateway-1")
    watches.use(watched, 0.0)
    counts = {"requests": 2, "gone": 0, "reasons": {f"E{n}": 1 for n in range(100)}, "buckets": {"3": 2}}
    watches.add({"counters": {}, "routes": {}, "watched": [[TOKEN, "old", counts]]})
    watches.use(table, 10.0)
    first, second = watches.report(10.0 + FORGET_AFTER_S - 1), watches.report(10.0 + FORGET_AFTER_S - 1)
    assert first is not None
    assert second is not None
    assert second.sequence == first.sequence + 1
    assert first.tallies == second.tallies
    assert first.tallies[0].cells["old"].failed == 100
    assert len(first.tallies[0].cells["old"].reasons) == 64
    assert first.tallies[0].cells["old"].reasons[OTHER] == 37
    assert watches.report(10.0 + FORGET_AFTER_S) is None


def test_of_more_tokens_than_a_report_takes_those_in_force_are_told_of() -> None:
    watches = Watches("gateway-1")
    old = table_of("in-force")
    watches.use(old, now=0.0)
    for number in range(MAX_TALLIES):
        watches.use(table_of("in-force", f"left-{number}"), now=number / 10)
    watches.use(old, now=7.0)
    report = watches.report(now=7.0)
    assert report is not None
    told = [tally.token for tally in report.tallies]
    assert (len(told), told[0], told[1]) == (MAX_TALLIES, "in-force", f"left-{MAX_TALLIES - 1}")


def table_of(*tokens: str) -> RouteTable:
    """Routes that carry these tokens."""
    routes = (
        Route(
            name=token,
            match=Match(path=f"/{token}"),
            to=(WeightedCluster(cluster="a"),),
            policies=Policies(watch=token),
        )
        for token in tokens
    )
    return RouteTable(routes=tuple(routes))
