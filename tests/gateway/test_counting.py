"""What a gateway counts: exact over its workers, whoever of them ends, and bounded in what it keeps."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from os import kill

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from toska_common.quantiles import quantile
from toska_gateway.exposition import render
from toska_gateway.gauges import Gauges
from toska_gateway.totals import FORGET_AFTER_S, MAX_ENDPOINTS, OTHER, Totals
from toska_gateway.worker.stats import BOUNDS, BUCKETS, WorkerStats
from toska_tests.gateways import Gateway, cluster, route, running_gateway, single
from toska_tests.ports import free_port
from toska_tests.raw_http import Conversation, ask, connected, get, request, response, upstream
from toska_tests.waiting import wait_until


@pytest.fixture
async def pair() -> AsyncGenerator[Gateway]:
    """A gateway of two workers."""
    async with running_gateway(workers=2) as gateway:
        await wait_until(lambda: [one.state for one in gateway.supervisor.workers()] == ["running"] * 2)
        yield gateway


async def served(gateway: Gateway, count: int, message: bytes) -> None:
    """Ask so often, each time on a connection of its own, so that both workers are asked."""
    for _ in range(count):
        await ask(gateway.address, message)


async def test_sums_are_exact_over_workers_of_which_one_is_killed_and_one_renewed(pair: Gateway) -> None:
    async with upstream(response(200, body=b"12345")) as app:
        await pair.serve({"clusters": {"app": cluster(app.port)}, "routes": [route("sum")]})
        message = request("POST", "/x", body=b"abc")
        asked = 0
        for step in ("none", "killed", "renewed"):
            if step == "killed":
                await pair.metrics()  # what a killed worker has not told is lost with it
                victim = pair.pids()[0]
                kill(victim, signal.SIGKILL)
                await wait_until(lambda gone=victim: gone not in pair.pids() and len(pair.pids()) == 2)
                await wait_until(lambda: [one.state for one in pair.supervisor.workers()] == ["running"] * 2)
            elif step == "renewed":
                await pair.supervisor.renew()
            await served(pair, 30, message)
            asked += 30
            assert await pair.metric("requests_total", route="sum", status="200") == asked
        endpoint = f"127.0.0.1:{app.port}"
        assert await pair.metric("request_duration_seconds_count", route="sum") == asked
        assert await pair.metric("request_body_bytes_total", route="sum") == asked * 3
        assert await pair.metric("response_body_bytes_total", route="sum") == asked * 5
        assert len(app.requests) == asked
        for noun, labels in (("cluster", {"cluster": "app"}), ("endpoint", {"cluster": "app", "endpoint": endpoint})):
            assert await pair.metric(f"{noun}_attempts_total", **labels) == asked
            assert await pair.metric(f"{noun}_responses_total", **labels, **{"class": "2xx"}) == asked
            assert await pair.metric(f"{noun}_response_duration_seconds_count", **labels) == asked
            made = await pair.metric(f"{noun}_connections_made_total", **labels)
            assert made == len(app.conversations)
        assert await pair.metric("cluster_connect_duration_seconds_count", cluster="app") == len(app.conversations)


async def test_no_count_falls_while_workers_come_and_go_under_load(pair: Gateway) -> None:
    async with upstream(response(200, body=b"12345")) as app:
        await pair.serve({"clusters": {"app": cluster(app.port)}, "routes": [route("rising")]})
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                await ask(pair.address, get())

        async with asyncio.TaskGroup() as group:
            group.create_task(load())
            before: dict[str, float] = {}
            for turn in range(12):
                if turn == 4:
                    group.create_task(pair.supervisor.renew())
                now = await pair.metrics()
                falling = [
                    name
                    for name, value in before.items()
                    if name.partition("{")[0].endswith(("_total", "_count", "_sum", "_bucket")) and now[name] < value
                ]
                assert falling == []
                before = now
                await asyncio.sleep(0)
            stop.set()


async def test_what_fails_is_counted_by_its_reason_and_by_our_own_code() -> None:
    async def script(conversation: Conversation) -> None:
        message = await conversation.request()
        if message.target == "/reset":
            conversation.reset()
        elif message.target == "/wrong":
            await conversation.send(b"HTTP/9.9 nonsense\r\n\r\n")
        elif message.target == "/short":
            await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
            conversation.cut()
        else:
            await conversation.until_closed()

    closed = free_port()
    async with upstream(script) as app:
        document = {
            "clusters": {"app": cluster(app.port), "dead": cluster(closed)},
            "routes": [
                route("late", "/late", policies={"response_timeout": "200ms"}),
                route("dead", "/dead", "dead"),
                route("rest", policies={"retry": {"attempts": 1}}),
            ],
        }
        async with running_gateway(document) as gateway:
            for target in ("/reset", "/wrong", "/late", "/dead"):
                await ask(gateway.address, get(target))
            async with connected(gateway.address) as client:
                await client.send(get("/short"))
                await client.head()
                assert await client.exactly(3) == b"abc"
                assert await client.is_closed()
            async with connected(gateway.address) as client:
                await client.send(get("/slow"))
                await wait_until(lambda: app.requests[-1].target == "/slow")
                client.reset()
            await gateway.until_quiet()
            for reason in ("reset", "protocol", "timeout", "cut_off", "abandoned"):
                assert await gateway.metric("endpoint_failures_total", cluster="app", reason=reason) == 1, reason
            assert await gateway.metric("cluster_connect_failures_total", cluster="dead", reason="refused") == 1
            assert await gateway.metric("endpoint_ejections_total", cluster="dead") == 1
            for name, code in (
                ("rest", "upstream-reset"),
                ("rest", "bad-upstream-response"),
                ("late", "upstream-timeout"),
                ("dead", "upstream-connect-failed"),
            ):
                assert await gateway.metric("errors_total", route=name, code=code) == 1, code
            await ask(gateway.address, get("/%00"))
            assert await gateway.metric("errors_total", route="(none)", code="bad-target") == 1


async def test_the_present_state_of_connections_is_shown() -> None:
    go_on = asyncio.Event()

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await go_on.wait()
            await conversation.send(response(200))

    async with upstream(script) as app:
        limited = cluster(app.port, limits={"max_connections": 1})
        async with (
            running_gateway({"clusters": {"app": limited}, "routes": [route("all")]}) as gateway,
            connected(gateway.address) as first,
            connected(gateway.address) as second,
        ):
            await first.send(get())
            await wait_until(lambda: len(app.requests) == 1)
            await second.send(get())

            async def waits() -> bool:
                return await gateway.metric("cluster_pending_requests", cluster="app") == 1

            await wait_until(waits)
            assert await gateway.metric("cluster_connections", cluster="app") == 1
            assert await gateway.metric("cluster_idle_connections", cluster="app") == 0
            go_on.set()
            await first.response()
            await second.response()
            assert await gateway.metric("endpoint_idle_connections", cluster="app") == 1
            assert await gateway.metric("cluster_pending_requests", cluster="app") == 0


async def test_an_endpoint_that_left_is_not_kept_by_its_worker_nor_for_ever_by_the_parent() -> None:
    async with upstream() as one, upstream() as two, running_gateway(single(one.port)) as gateway:
        await ask(gateway.address, get())
        await gateway.metrics()
        await gateway.serve(single(two.port))
        await ask(gateway.address, get())
        # The sums of the cluster go on, whatever becomes of its endpoints.
        assert await gateway.metric("cluster_attempts_total", cluster="app") == 2
        assert await gateway.metric("endpoint_attempts_total", endpoint=f"127.0.0.1:{one.port}") == 1
        await gateway.serve(single(one.port))
        await ask(gateway.address, get())
        assert await gateway.metric("endpoint_attempts_total", endpoint=f"127.0.0.1:{one.port}") == 2


def report_of(*endpoints: str) -> dict[str, object]:
    """The report of a worker that sent one request to each endpoint of a cluster."""
    stats = WorkerStats()
    for key in endpoints:
        stats.endpoint("app", key).attempts += 1
    return stats.take()


def test_endpoints_that_left_are_forgotten_after_a_while_and_their_cluster_keeps_the_sum() -> None:
    totals = Totals()
    totals.add(report_of("a", "b"))
    totals.forget({"app": {"a"}}, 0.0)
    totals.forget({"app": {"a"}}, FORGET_AFTER_S - 1)
    assert set(totals.endpoints["app"]) == {"a", "b"}
    totals.forget({"app": {"a"}}, FORGET_AFTER_S)
    assert set(totals.endpoints["app"]) == {"a"}
    assert totals.clusters["app"]["attempts"] == 2


def test_an_endpoint_that_comes_back_in_time_is_not_forgotten() -> None:
    totals = Totals()
    totals.add(report_of("a"))
    totals.forget({}, 0.0)
    totals.forget({"app": {"a"}}, FORGET_AFTER_S)
    totals.forget({}, FORGET_AFTER_S + 1)
    assert set(totals.endpoints["app"]) == {"a"}


def test_more_endpoints_than_have_series_of_their_own_are_counted_together() -> None:
    totals = Totals()
    totals.add(report_of(*(f"e{number}" for number in range(MAX_ENDPOINTS + 5))))
    assert len(totals.endpoints["app"]) == MAX_ENDPOINTS + 1
    assert totals.endpoints["app"][OTHER]["attempts"] == 5
    assert totals.clusters["app"]["attempts"] == MAX_ENDPOINTS + 5


def test_a_report_holds_only_what_is_new() -> None:
    stats = WorkerStats()
    stats.route("a").record(200, 0.01, 3, 4)
    stats.endpoint("app", "e").answered(200, 0.01)
    stats.accepted += 1
    first = stats.take()
    assert first["counters"] == {"accepted": 1}
    assert first["routes"]["a"]["statuses"] == {200: 1}
    assert first["endpoints"]["app"]["e"]["classes"] == {2: 1}
    assert stats.take() == {"counters": {}, "routes": {}, "endpoints": {}}


def test_percentiles_of_a_histogram_are_near_the_truth() -> None:
    chance = random.Random(7)
    stats = WorkerStats().route("a")
    truth = sorted(chance.lognormvariate(-4, 1.0) for _ in range(20_000))
    for seconds in truth:
        stats.record(200, seconds)
    for share in (0.5, 0.9, 0.99):
        exact = truth[int(share * len(truth))]
        assert quantile(BOUNDS, stats.buckets, share) == pytest.approx(exact, rel=0.1)


def test_what_prometheus_is_shown_adds_up_to_what_was_counted() -> None:
    stats = WorkerStats()
    chance = random.Random(3)
    durations = [chance.lognormvariate(-4, 2.0) for _ in range(3000)] + list(BUCKETS)
    for seconds in durations:
        stats.route('a"\\\n').record(200, seconds)
    totals = Totals()
    totals.add(stats.take())
    families = {family.name: family for family in parse_text(render(totals, Gauges([]), 1))}
    shown = {
        sample.labels["le"]: sample.value
        for sample in families["toska_gateway_request_duration_seconds"].samples
        if sample.name.endswith("_bucket")
    }
    for bound in BUCKETS:
        assert shown[str(bound)] == sum(seconds <= bound for seconds in durations), bound
    assert shown["+Inf"] == len(durations)
    (sample,) = families["toska_gateway_requests"].samples
    assert sample.labels == {"route": 'a"\\\n', "status": "200"}


def test_openmetrics_shows_sampled_traces_as_exemplars() -> None:
    stats = WorkerStats()
    stats.route("a").record(200, 0.003)
    stats.route("a").illustrate("4bf92f3577b34da6a3ce929d0e0e4736", 0.003, 1700000000.5)
    totals = Totals()
    totals.add(stats.take())
    page = render(totals, Gauges([]), 1, openmetrics=True) + "# EOF\n"
    read = openmetrics.text_string_to_metric_families  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    families = {family.name: family for family in read(page)}
    exemplars = [
        (sample.labels["le"], sample.exemplar)
        for sample in families["toska_gateway_request_duration_seconds"].samples
        if sample.exemplar is not None
    ]
    assert [le for le, _ in exemplars] == ["0.005"]
    exemplar = exemplars[0][1]
    assert exemplar is not None
    assert exemplar.labels == {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    assert exemplar.value == 0.003
    assert Counter(family.type for family in families.values())["unknown"] == 0
