"""Filters that raise, hang, block, and set what nobody may: contained, named, told without the request's words."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from toska_gateway import filter_trial
from toska_gateway.errors import SnapshotRejected
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.raw_http import ask, connected, get, request, response, upstream
from toska_tests.waiting import unless_late, wait_until

UNRULY = Path(__file__).parents[1] / "toska_tests" / "unruly"
SECRET = "the-secret-that-no-log-may-hold"


@pytest.fixture
async def gateway() -> AsyncGenerator[Gateway]:
    """One for each test: what is told is told once in a while only."""
    async with running_gateway(filters=UNRULY) as gateway:
        yield gateway


def filtered(port: int, use: str, **more: Any) -> dict[str, Any]:
    """Everything to one cluster, past one filter, and a route beside it without any."""
    document = single(port, policies={"filters": [{"use": f"unruly_filters:{use}", **more}]})
    document["routes"].append({"name": "beside", "match": {"path": "/beside"}, "to": "app"})
    return document


async def logged(logs: list[Any], event: str) -> dict[str, Any]:
    """A line of the log, once it is there."""
    await wait_until(lambda: any(line["event"] == event for line in logs), what=event)
    return next(line for line in logs if line["event"] == event)


@pytest.mark.parametrize(
    ("use", "at"),
    [
        ("Fail", "request"),
        ("Fail", "response"),
        ("Fail", "request-feed"),
        ("Fail", "request-finish"),
        ("Fail", "response-feed"),
        ("Fail", "response-finish"),
        ("FailLater", "request"),
        ("FailLater", "response"),
    ],
)
async def test_an_error_at_any_place_is_answered_named_and_counted(gateway: Gateway, use: str, at: str) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, use))
        with capture_logs() as logs:
            answer = await ask(gateway.address, request("POST", "/", f"x-at: {at}", body=b"a body"))
            line = await logged(logs, "filter_failed")
        assert (answer.status, answer.error) == (500, "filter-failed")
        assert line["filter"] == f"unruly_filters:{use}"
        assert line["route"] == "all"
        assert "unruly_filters.py:" in line["reason"]
        assert SECRET not in str(logs)
        assert SECRET.encode() not in answer.body
        name = f"unruly_filters:{use}"
        assert await gateway.metric("filter_faults_total", route="all", filter=name, outcome="failed") == 1
        assert (await ask(gateway.address, get("/beside"))).body == b"ok"
        await gateway.until_quiet()


async def test_an_error_in_a_body_that_is_on_its_way_cuts_it_off(gateway: Gateway) -> None:
    big = b"x" * 300_000
    async with upstream(response(200, body=big)) as app:
        await gateway.serve(filtered(app.port, "Fail"))
        async with connected(gateway.address) as client:
            await client.send(get("/", "x-at: response-finish"))
            assert (await client.head()).status == 200
            with pytest.raises((ConnectionError, EOFError)):
                while await client.some():
                    pass
                assert not client.received.endswith(b"0\r\n\r\n")
                raise EOFError
        await gateway.until_quiet()


async def test_a_call_that_waits_too_long_is_answered_for(gateway: Gateway, tmp_path: Path) -> None:
    note = tmp_path / "note"
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Hang", settings={"path": str(note)}, timeout="200ms"))
        for at in ("request", "response"):
            with capture_logs() as logs:
                started = time.perf_counter()
                answer = await ask(gateway.address, get("/", f"x-at: {at}"))
                assert 0.19 < time.perf_counter() - started < 20
            assert (answer.status, answer.error) == (504, "filter-timeout")
            assert b"unruly_filters:Hang" in answer.body
            await wait_until(lambda: note.read_text() == "cancelled")
            if at == "request":
                assert (await logged(logs, "filter_timed_out"))["filter"] == "unruly_filters:Hang"
        assert await gateway.metric("filter_faults_total", outcome="timeout") == 2
        # It says nothing of the upstream.
        assert await gateway.metric("endpoint_failures_total") == 0


@pytest.mark.parametrize("how", ["sleep", "spin"])
async def test_a_call_that_holds_the_loop_is_interrupted_and_then_left_alone(gateway: Gateway, how: str) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Block", timeout="200ms"))
        pids = gateway.pids()
        with capture_logs() as logs:
            for _ in range(3):
                answer = await ask(gateway.address, get("/", f"x-block: {how}"))
                assert (answer.status, answer.error) == (504, "filter-timeout")
                assert (await ask(gateway.address, get("/beside"))).body == b"ok"
            line = await logged(logs, "filter_interrupted")
        assert line["filter"] == "unruly_filters:Block"
        suspended = await ask(gateway.address, get())
        assert (suspended.status, suspended.error) == (503, "filter-suspended")
        assert 1 <= int(suspended.value("retry-after") or 0) <= 10
        assert (await ask(gateway.address, get("/beside"))).body == b"ok"
        assert await gateway.metric("filter_faults_total", outcome="suspended") == 1
        assert gateway.pids() == pids


async def test_a_step_of_a_call_that_waits_is_interrupted_too(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "BlockLater", timeout="200ms"))
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.error) == (504, "filter-timeout")
        assert (await ask(gateway.address, get("/beside"))).body == b"ok"


async def test_a_call_that_is_slow_is_told_of(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Block"))
        with capture_logs() as logs:
            assert (await ask(gateway.address, get("/", "x-block: briefly"))).body == b"ok"
            line = await logged(logs, "filter_held_the_loop")
        assert line["filter"] == "unruly_filters:Block"
        assert line["milliseconds"] >= 100
        assert await gateway.metric("filter_faults_total", outcome="slow") == 1


async def test_failures_are_counted_each_and_told_once_in_a_while(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Fail"))
        with capture_logs() as logs:
            for _ in range(5):
                await ask(gateway.address, get("/", "x-at: request"))
            assert await gateway.metric("filter_faults_total", outcome="failed") == 5
        assert len([line for line in logs if line["event"] == "filter_failed"]) == 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("return|", "returned a str"),
        ("content-length|5", "content-length is the gateway's own"),
        ("Transfer-Encoding|chunked", "transfer-encoding is the gateway's own"),
        ("host|elsewhere", "host is the gateway's own"),
        ("x_forwarded_for|1.2.3.4", "x_forwarded_for is the gateway's own"),
        ("connection|close", "connection is the gateway's own"),
        ("x-a|bCRLFx-b: c", "control character"),
        ("x-a|bLF", "control character"),
        ("x-a|bNUL", "control character"),
        ("x a|b", "no name of a header field"),
        ("answer|content-length", "content-length is the gateway's own"),
        ("answer|content-type", "content_type"),
    ],
)
async def test_what_a_filter_may_not_say_is_refused_and_explained(gateway: Gateway, wrong: str, told: str) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Wrong"))
        with capture_logs() as logs:
            answer = await ask(gateway.address, get("/", f"x-wrong: {wrong}"))
            assert (answer.status, answer.error) == (500, "filter-failed")
            assert told in (await logged(logs, "filter_failed"))["reason"]
        assert app.requests == []


def module(folder: Path, name: str, text: str) -> str:
    """Write a module; returns its name."""
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return name


GOOD = "from toska_common.filters import Filter\nclass F(Filter):\n    pass\n"
CASES = {
    "missing": ("no_such_module:F", "", "No module named 'no_such_module'"),
    "no_class": ("here:G", GOOD, "here has no G"),
    "no_filter": ("here:int_", "int_ = int\n", "is no toska_common.filters.Filter"),
    "raises": ("here:F", "raise RuntimeError('not today')\n", "RuntimeError: not today (here.py:1)"),
    "syntax": ("here:F", "def (\n", "SyntaxError"),
    "exits": ("here:F", "raise SystemExit(3)\n", "SystemExit: 3"),
    "dies": ("here:F", "import os\nos._exit(7)\n", "ends the process (exit code 7)"),
    "hangs": ("here:F", "import time\ntime.sleep(3600)\n", "takes longer than"),
    "constructor": ("here:F", GOOD.replace("pass", "def __init__(self, settings): 1 / 0"), "ZeroDivisionError"),
    "annotation": ("here:F", GOOD.replace("pass", "settings: 'Nowhere'"), "annotation"),
    "plain_annotation": ("here:F", GOOD.replace("pass", "settings: int"), "neither a pydantic model nor a dataclass"),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_filter_that_cannot_be_had_refuses_the_routing_and_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    use, text, reason = CASES[case]
    module(tmp_path, "here", text)
    if case == "hangs":
        monkeypatch.setattr(filter_trial, "TRIAL_S", 1.5)
    async with upstream() as app, running_gateway(filters=tmp_path) as gateway:
        await gateway.serve(single(app.port))
        with pytest.raises(SnapshotRejected) as caught:
            await gateway.serve(single(app.port, policies={"filters": [use]}))
        [problem] = caught.value.problems
        assert problem["field"] == "routes[0].policies.filters[0]"
        assert reason in problem["reason"]
        assert (await ask(gateway.address, get())).body == b"ok"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"limit": "many", "key": SECRET}, "limit: Input should be a valid integer"),
        ({"limit": 1, "key": [SECRET]}, "key: Input should be a valid string"),
        ({}, "limit: Field required; key: Field required"),
    ],
)
async def test_settings_are_held_to_the_filters_model_and_wrong_ones_are_not_quoted(
    tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    module(
        tmp_path,
        "modelled",
        "from pydantic import BaseModel\n"
        "from toska_common.filters import Filter\n"
        "class S(BaseModel):\n    limit: int\n    key: str\n"
        "class F(Filter):\n    settings: S\n",
    )
    async with running_gateway(filters=tmp_path) as gateway:
        with pytest.raises(SnapshotRejected) as caught:
            await gateway.serve(single(1, policies={"filters": [{"use": "modelled:F", "settings": settings}]}))
        [problem] = caught.value.problems
        assert told in problem["reason"]
        assert SECRET not in problem["reason"]


async def test_a_filter_without_a_model_takes_no_settings(gateway: Gateway) -> None:
    with pytest.raises(SnapshotRejected) as caught:
        await gateway.serve(filtered(1, "Count", settings={"a": 1}))
    assert "takes no settings" in caught.value.problems[0]["reason"]


async def test_the_first_routing_of_a_gateway_is_tried_as_every_other(tmp_path: Path) -> None:
    with pytest.raises((SnapshotRejected, BaseExceptionGroup)):
        async with running_gateway(single(1, policies={"filters": ["nothing_here:F"]}), filters=tmp_path):
            pass


async def test_many_requests_that_time_out_at_once_leave_nothing_behind(gateway: Gateway, tmp_path: Path) -> None:
    async with upstream() as app:
        await gateway.serve(filtered(app.port, "Hang", settings={"path": str(tmp_path / "n")}, timeout="100ms"))
        answers = await asyncio.gather(*(ask(gateway.address, get("/", "x-at: response")) for _ in range(50)))
        assert {answer.status for answer in answers} == {504}
        await gateway.until_quiet()
        assert (await ask(gateway.address, get())).body == b"ok"


async def test_a_request_that_was_answered_is_not_sent_again_because_a_filter_waits(
    gateway: Gateway, tmp_path: Path
) -> None:
    async with upstream() as one, upstream() as two:
        policies = {
            "response_timeout": "500ms",
            "retry": {"attempts": 3, "retry_on": ["timeout", "connect"]},
            "filters": [{"use": "unruly_filters:Hang", "timeout": "3s", "settings": {"path": str(tmp_path / "note")}}],
        }
        await gateway.serve(single(one.port, two.port, policies=policies))

        async def asked_once() -> None:
            one.requests.clear()
            two.requests.clear()
            answer = await ask(gateway.address, request("POST", "/", "x-at: response", body=b"once"))
            assert (answer.status, answer.error) == (504, "policy-timeout")
            assert len(one.requests) + len(two.requests) == 1

        await unless_late(asked_once, limit_s=2 * 0.5)  # in half of which the endpoint has answered
        await gateway.until_quiet()
