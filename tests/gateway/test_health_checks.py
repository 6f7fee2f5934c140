"""Active health checks: what is asked, what follows from the answer, and who hears of it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from toska_common.contracts.routing import Cluster
from toska_tests.certificates import Authority
from toska_tests.gateways import Gateway, cluster, route, running_gateway
from toska_tests.ports import free_port
from toska_tests.raw_http import OK, Conversation, Upstream, ask, black_hole, get, response, upstream
from toska_tests.waiting import wait_until

CHECK: dict[str, Any] = {"path": "/ready", "interval": "100ms", "timeout": "100ms", "rise": 2, "fall": 2}
FIRST_ONLY = {"interval": "60s", "timeout": "30s"}
"""For what the first check decides: no answer to it is too late, and no other check follows."""


def document(*ports: int, check: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """Everything to one cluster whose endpoints are checked."""
    settings = {"balancer": "round_robin", "health_check": {**CHECK, **(check or {})}, **settings}
    return {"clusters": {"app": cluster(*ports, **settings)}, "routes": [route("all")]}


class Patient:
    """An upstream's script: well for requests, and for checks as it is told to be."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer

    async def __call__(self, conversation: Conversation) -> None:
        while True:
            message = await conversation.request()
            await conversation.send(self.answer if message.target == "/ready" else OK)


def checks(app: Upstream) -> int:
    """How often an upstream was checked."""
    return sum(message.target == "/ready" for message in app.requests)


def served(app: Upstream) -> int:
    """How many other requests it had."""
    return len(app.requests) - checks(app)


async def until_unhealthy(gateway: Gateway, count: int) -> float:
    """Wait until so many endpoints are left out; tells how long that took."""

    async def reached() -> bool:
        return await gateway.metric("endpoint_unhealthy") == count

    return await wait_until(reached, what=f"{count} unhealthy endpoints")


async def test_an_endpoint_that_fails_its_check_gets_no_requests_until_it_passes_again(gateway: Gateway) -> None:
    ill = Patient(response(500))
    async with upstream(ill) as one, upstream(Patient()) as other:
        await gateway.serve(document(one.port, other.port))

        async def left_out() -> bool:
            before = served(one)
            for _ in range(10):
                assert (await ask(gateway.address, get())).status == 200
            return served(one) == before

        async def taken_again() -> bool:
            return not await left_out()

        # More than once: whoever is well is ill, too, to those whose checks the machine makes late.
        await wait_until(left_out, what="the endpoint gets no requests")
        ill.answer = OK
        await until_unhealthy(gateway, 0)
        await wait_until(taken_again, what="the endpoint gets requests")


async def test_the_first_check_comes_at_once_and_decides_alone(gateway: Gateway) -> None:
    async with upstream(Patient(response(503))) as one, upstream(Patient()) as other:
        begun = time.monotonic()
        await gateway.serve(document(one.port, other.port, check={**FIRST_ONLY, "fall": 10}))
        await until_unhealthy(gateway, 1)
        assert time.monotonic() - begun < 30
        assert checks(one) == 1


async def test_a_check_is_a_get_on_a_connection_of_its_own(gateway: Gateway) -> None:
    async with upstream(Patient()) as app:
        await gateway.serve(document(app.port, check={"path": "/ready", "host": "app.test"}))
        await wait_until(lambda: checks(app) >= 3)
        message = next(message for message in app.requests if message.target == "/ready")
        assert (message.method, message.value("host")) == ("GET", b"app.test")
        assert message.value("user-agent") == b"toska-health-check"
        assert message.value("connection") == b"close"
        assert all(len(one.requests) == 1 for one in app.conversations)
        await gateway.serve(document(app.port))
        seen = len(app.requests)
        await wait_until(lambda: len(app.requests) > seen + 1)
        assert app.requests[-1].value("host") == b"127.0.0.1:%d" % app.port


async def test_checks_come_about_once_an_interval_however_many_workers_there_are() -> None:
    async with upstream(Patient()) as app, running_gateway(document(app.port), workers=2):

        async def one_workers() -> bool:
            begun, before = time.monotonic(), checks(app)
            await wait_until(lambda: checks(app) >= before + 10)
            return time.monotonic() - begun > 0.7  # with checks by each worker it would be half of it

        # More than once: checks that nobody has heard yet come all at once.
        await wait_until(one_workers, what="checks that come once an interval")


@pytest.mark.parametrize(
    ("expect", "status", "well"),
    [(["200-399"], 302, True), (["2xx"], 302, False), ([401, "2xx"], 401, True), ([200], 204, False)],
)
async def test_what_is_well_can_be_said(gateway: Gateway, expect: list[object], status: int, well: bool) -> None:
    async with upstream(Patient(response(status))) as one, upstream(Patient()) as other:
        await gateway.serve({})
        await gateway.serve(document(one.port, other.port, check={"expect": expect}))
        await wait_until(lambda: checks(one) >= 2)
        await until_unhealthy(gateway, 0 if well else 1)


async def mute(conversation: Conversation) -> None:
    """Take a check and never answer."""
    await conversation.request()
    await conversation.until_closed()


async def rude(conversation: Conversation) -> None:
    """Take a check and break off."""
    await conversation.request()
    conversation.reset()


async def gibberish(conversation: Conversation) -> None:
    """Take a check and answer with something else."""
    await conversation.request()
    await conversation.send(b"220 mail.test ESMTP\r\n\r\n")


@pytest.mark.parametrize("script", [mute, rude, gibberish])
async def test_no_answer_is_a_failed_check(gateway: Gateway, script: Any) -> None:
    async with upstream(script) as one, upstream(Patient()) as other:
        await gateway.serve({})
        await gateway.serve(document(one.port, other.port))
        await wait_until(lambda: len(one.conversations) >= 2)

        async def left_out() -> bool:
            seen = sum(message.target == "/" for message in one.requests)
            for _ in range(4):
                await ask(gateway.address, get())
            return sum(message.target == "/" for message in one.requests) == seen

        async with asyncio.timeout(10):
            await wait_until(left_out, what="the endpoint gets no requests")


async def test_nobody_there_is_a_failed_check(gateway: Gateway) -> None:
    with black_hole() as hole:
        async with upstream(Patient()) as other:
            wanted = document(free_port(), hole, other.port)
            wanted["routes"] = [route("all", policies={"connect_timeout": "2s"})]
            await gateway.serve(wanted)

            async def quick() -> bool:
                begun = time.monotonic()
                answers = [(await ask(gateway.address, get())).status for _ in range(6)]
                return answers == [200] * 6 and time.monotonic() - begun < 0.5

            await wait_until(quick, what="requests go only to who is there")


async def test_when_all_fail_their_checks_all_are_tried(gateway: Gateway) -> None:
    async with upstream(Patient(response(500))) as one, upstream(Patient(response(500))) as other:
        await gateway.serve(document(one.port, other.port, check=FIRST_ONLY))
        await until_unhealthy(gateway, 2)
        for _ in range(4):
            assert (await ask(gateway.address, get())).status == 200
        assert served(one) >= 2
        assert served(other) >= 2


async def test_without_its_health_check_a_cluster_takes_everybody_again(gateway: Gateway) -> None:
    async with upstream(Patient(response(500))) as one, upstream(Patient()) as other:
        await gateway.serve(document(one.port, other.port))
        await until_unhealthy(gateway, 1)
        plain = document(one.port, other.port)
        del plain["clusters"]["app"]["health_check"]
        await gateway.serve(plain)
        seen, before = checks(one), served(one)
        for _ in range(4):
            assert (await ask(gateway.address, get())).status == 200
        assert served(one) == before + 2
        await asyncio.sleep(0.3)
        assert checks(one) <= seen + 1  # (one may have been under way)


async def test_a_worker_that_starts_has_the_verdicts_before_its_first_request() -> None:
    async with (
        upstream(Patient(response(500))) as one,
        upstream(Patient()) as other,
        running_gateway(document(one.port, other.port, check=FIRST_ONLY)) as gateway,
    ):
        await until_unhealthy(gateway, 1)
        before = served(one)
        await gateway.supervisor.renew()
        for _ in range(6):
            assert (await ask(gateway.address, get())).status == 200
        assert served(one) == before
        assert checks(one) == 1


async def test_a_check_speaks_the_clusters_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.server_context(authority.issue("a", "app.test"))
    async with upstream(Patient(), tls=server) as good, upstream(Patient()) as plain:
        tls = {"ca": str(authority.file), "server_name": "app.test"}
        async with running_gateway(document(good.port, plain.port, check=FIRST_ONLY, tls=tls)) as gateway:
            await until_unhealthy(gateway, 1)
            for _ in range(6):
                assert (await ask(gateway.address, get())).status == 200
            assert checks(good) >= 1
            assert plain.requests == []


async def test_a_check_goes_nowhere_where_requests_may_not(gateway: Gateway) -> None:
    async with upstream() as secret, upstream() as other:
        management = [("127.0.0.1", secret.port)]
        async with running_gateway(document(secret.port, other.port), management=management) as own:
            await wait_until(lambda: len(other.requests) >= 3)
            assert secret.conversations == []
            assert (await ask(own.address, get())).status == 200


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        ({"interval": "50ms"}, "interval lies between 100ms and 1h"),
        ({"timeout": "6s"}, "at most the interval"),
        ({"expect": ["399-200"]}, "lower end first"),
        ({"expect": []}, "at least one status"),
        ({"path": "ready"}, "starts with /"),
        ({"path": "/a b"}, "without spaces"),
        ({"rise": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused(check: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Cluster.model_validate({"service": "x", "health_check": check})
