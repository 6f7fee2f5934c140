"""What the Envoy engine counts on routes under watch: each request once, by cluster, and whether it failed."""

import asyncio
import contextlib
import itertools
from datetime import timedelta
from typing import Any

import pytest
from toska_common.clock import now_utc
from toska_common.contracts.tallies import CellCounts, Tally
from toska_common.routing.versions import table_version
from toska_tests.envoys import EnvoyGateway
from toska_tests.gateways import cluster, route, snapshot_of
from toska_tests.ports import free_port
from toska_tests.raw_http import Conversation, ask, connected, get, request, response, upstream
from toska_tests.waiting import wait_until

_serial = itertools.count(1)


async def _watch(envoy: EnvoyGateway, *ports: int, **policies: Any) -> str:
    """Put a split of `old` and `new` in force as a router does that watches it; returns its token."""
    named = {name: cluster(port) for name, port in zip(("old", "new"), ports, strict=False)}
    to = [{"cluster": name, "weight": 1} for name in named]
    document = {"clusters": named, "routes": [route("pay", to=to, policies=policies)]}
    token = f"rollout:pay:{next(_serial)}:0"
    snapshot = snapshot_of(document)
    routes = tuple(
        one.model_copy(update={"policies": one.policies.model_copy(update={"watch": token})})
        for one in snapshot.table.routes
    )
    table = snapshot.table.model_copy(update={"routes": routes})
    await envoy.plane.apply(snapshot.model_copy(update={"table": table, "routes_version": table_version(table)}))
    return token


async def _counted(envoy: EnvoyGateway, token: str) -> Tally:
    await envoy.stats()  # Envoy adds its histograms up when it is asked for them, and tells them when it is asked again
    await envoy.stats()
    report = envoy.plane.counted()
    assert report is not None
    return next(tally for tally in report.tallies if tally.token == token)


async def _until_counted(envoy: EnvoyGateway, token: str) -> CellCounts:
    """The counts of `old` once there are any: Envoy counts a request when it is over for it, too."""
    found: list[CellCounts] = []

    async def is_there() -> bool:
        found.extend(cell for name, cell in (await _counted(envoy, token)).cells.items() if name == "old")
        return bool(found)

    await wait_until(is_there, within=20)
    return found[-1]


async def _breaking_off(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")


async def _silent(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.until_closed()


async def test_requests_are_counted_by_the_part_that_they_went_to_with_their_latencies(envoy: EnvoyGateway) -> None:
    async with upstream() as old, upstream(response(500)) as new:
        token = await _watch(envoy, old.port, new.port)
        answers = [(await ask(envoy.address, get())).status for _ in range(40)]
        tally = await _counted(envoy, token)
    failed = answers.count(500)
    assert 0 < failed < 40
    assert (tally.cells["old"].requests, tally.cells["old"].failed) == (40 - failed, 0)
    assert tally.cells["new"].model_copy(update={"buckets": {}}) == CellCounts(
        requests=failed, failed=failed, reasons={"500": failed}
    )
    assert sum(tally.cells["new"].buckets.values()) == failed
    assert (tally.whole.requests, tally.whole.failed) == (40, failed)


async def test_what_policies_refuse_is_not_counted_and_what_nobody_could_serve_has_failed(envoy: EnvoyGateway) -> None:
    abort = {"abort": {"status": 503}, "headers": {"x-chaos": "1"}}
    token = await _watch(envoy, free_port(), fault=abort, retry={"attempts": 1})
    assert (await ask(envoy.address, get("/", "x-chaos: 1"))).status == 503
    assert (await ask(envoy.address, get())).status == 502
    tally = await _counted(envoy, token)
    assert tally.cells["old"].reasons == {"upstream-connect-failed": 1}
    assert (tally.cells["old"].requests, tally.whole.requests, tally.whole.aborted) == (1, 2, 1)


async def test_a_request_that_only_a_fallback_or_a_retry_saved_has_failed_behind_envoy(envoy: EnvoyGateway) -> None:
    respond = {"respond": {"status": 200, "body": "soon"}, "on": ["connect"]}
    token = await _watch(envoy, free_port(), fallback=respond, retry={"attempts": 1})
    assert (await ask(envoy.address, get())).status == 200
    assert (await _counted(envoy, token)).cells["old"].reasons == {"fallback": 1}
    async with upstream(response(503)) as busy, upstream() as spare:
        fallback = {"cluster": "new", "on": ["503"]}
        token = await _watch(envoy, busy.port, spare.port, fallback=fallback, retry={"attempts": 1})
        while busy.requests == []:
            assert (await ask(envoy.address, get())).status == 200
        assert (await _until_counted(envoy, token)).reasons == {"retried": 1}


async def test_answers_that_break_off_have_failed_and_clients_that_leave_have_not(envoy: EnvoyGateway) -> None:
    async with upstream(_breaking_off) as app:
        token = await _watch(envoy, app.port)
        async with connected(envoy.address) as client:
            await client.send(get())
            with contextlib.suppress(ConnectionResetError):
                await client.to_end()
        assert (await _until_counted(envoy, token)).reasons == {"cut-off": 1}
    async with upstream(_silent) as silent:
        token = await _watch(envoy, silent.port)
        async with connected(envoy.address) as client:
            await client.send(get())
            await wait_until(lambda: len(silent.requests) == 1)
            client.reset()
        cell = await _until_counted(envoy, token)
    assert (cell.requests, cell.failed, cell.gone) == (0, 0, 1)


async def test_a_fault_ends_by_itself(envoy: EnvoyGateway) -> None:
    async with upstream() as app:
        until = (now_utc() + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        fault = {"abort": {"status": 503}, "until": until}
        await envoy.serve({"clusters": {"app": cluster(app.port)}, "routes": [route("app", policies={"fault": fault})]})
        assert (await ask(envoy.address, get())).status == 503

        async def is_over() -> bool:
            return (await ask(envoy.address, get())).status == 200

        await wait_until(is_over, within=20)


@pytest.mark.parametrize("sticky", [None, {"header": "x-user"}])
async def test_a_fault_on_a_cluster_hits_only_its_part(envoy: EnvoyGateway, sticky: dict[str, str] | None) -> None:
    async with upstream() as old, upstream() as new:
        policies = {"fault": {"abort": {"status": 418}, "clusters": ["new"]}}
        split = route("app", to=[{"cluster": "old"}, {"cluster": "new"}], policies=policies)
        document = {
            "clusters": {"old": cluster(old.port), "new": cluster(new.port)},
            "routes": [split | ({"sticky": sticky} if sticky else {})],
        }
        await envoy.serve(document)
        statuses = [(await ask(envoy.address, get("/", f"X-User: {number}"))).status for number in range(40)]
        assert set(statuses) == {200, 418}
        assert (len(old.requests), len(new.requests)) == (statuses.count(200), 0)


async def test_a_hedge_is_no_failure_and_no_more_than_are_asked_for_are_sent(envoy: EnvoyGateway) -> None:
    async def slow(conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            if message.method == "GET":
                await wait_until(lambda: len(app.requests) >= 2, what="a rival")
            await asyncio.sleep(0.2)
            await conversation.send(response(200))

    async with upstream(slow) as app:
        token = await _watch(envoy, app.port, hedge={"after": "30ms"})
        assert (await ask(envoy.address, get())).status == 200
        cell = await _until_counted(envoy, token)
        assert (cell.requests, cell.failed) == (1, 0)
        assert len(app.requests) == 2
        assert (await ask(envoy.address, request("POST"))).status == 200
        assert len(app.requests) == 3
