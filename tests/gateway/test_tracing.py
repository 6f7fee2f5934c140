"""Trace context as W3C has it, and spans of sampled requests, decoded by OpenTelemetry's own classes."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from toska_common.routing.problems import InvalidDocument
from toska_gateway import span_exporter
from toska_gateway.wire import Known, messages
from toska_gateway.worker.tracing import Parent, read_parent
from toska_tests.gateways import cluster, route, running_gateway, snapshot_of
from toska_tests.ports import free_port
from toska_tests.raw_http import Conversation, ask, get, request, response, upstream
from toska_tests.waiting import wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"traceparent: 00-{TRACE}-{SPAN}-01"


def special(*parents: str, states: tuple[str, ...] = ()) -> dict[bytes, tuple[bytes, ...]]:
    """A head's special fields."""
    fields: dict[bytes, tuple[bytes, ...]] = {}
    if parents:
        fields[b"traceparent"] = tuple(parent.encode() for parent in parents)
    if states:
        fields[b"tracestate"] = tuple(state.encode() for state in states)
    return fields


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 3),
        (f"cc-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", 1),
    ],
)
def test_a_proper_traceparent_is_continued(given: str, flags: int) -> None:
    assert read_parent(special(given)) == Parent(TRACE.encode(), SPAN.encode(), flags, b"")


@pytest.mark.parametrize(
    "given",
    [
        (),
        (f"ff-{TRACE}-{SPAN}-01",),
        (f"00-{TRACE}-{SPAN}-01-extra",),
        (f"00-{TRACE}-{SPAN}-01-",),
        (f"cc-{TRACE}-{SPAN}-01.what",),
        (f"00-{'0' * 32}-{SPAN}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (f"00-{TRACE.upper()}-{SPAN}-01",),
        (f"00-{TRACE[:-1]}-{SPAN}-01",),
        (f"00-{TRACE}-{SPAN}-1",),
        (f"00-{TRACE}-{SPAN}-.0",),
        (f"00-{TRACE}-{SPAN}-01",) * 2,
    ],
)
def test_of_any_other_the_trace_starts_anew(given: tuple[str, ...]) -> None:
    assert read_parent(special(*given, states=("a=b",))) is None


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        (("foo=1",), "foo=1"),
        (("foo=1,bar=2", "rojo=1, congo=2"), "foo=1,bar=2,rojo=1,congo=2"),
        (("foo=1 \t , \t bar=2, \t baz=3",), "foo=1,bar=2,baz=3"),
        (("foo=1,", ",", "", "bar=2"), "foo=1,bar=2"),
        (("t3st@vendor=1,0a/b*c-d_e= x",), "t3st@vendor=1,0a/b*c-d_e= x"),
        ((f"{'a' * 256}=1",), f"{'a' * 256}=1"),
        ((f"foo={'v' * 256}",), f"foo={'v' * 256}"),
        ((",".join(f"m{number}=1" for number in range(32)),), ",".join(f"m{number}=1" for number in range(32))),
        ((",".join(f"m{number}=1" for number in range(33)),), ""),
        ((f"{'a' * 257}=1",), ""),
        ((f"foo={'v' * 257}",), ""),
        ((f"{'t' * 242}@v=1",), ""),
        ((f"t@{'v' * 15}=1",), ""),
        (("foo=1", "foo=2"), ""),
        (("foo",), ""),
        (("foo =1",), ""),
        (("FOO=1",), ""),
        (("foo=bar=baz",), ""),
        (("foo=\xe9",), ""),
        (("=1",), ""),
        (("foo@=1",), ""),
        (("@foo=1",), ""),
        (("foo@bar@baz=1",), ""),
    ],
)
def test_a_tracestate_is_carried_whole_or_not_at_all(lines: tuple[str, ...], joined: str) -> None:
    parent = read_parent(special(f"00-{TRACE}-{SPAN}-01", states=lines))
    assert parent is not None
    assert parent.state.decode("latin-1") == joined


async def test_a_trace_goes_on_with_its_state_and_a_broken_one_without() -> None:
    async with (
        upstream() as app,
        running_gateway({"clusters": {"app": cluster(app.port)}, "routes": [route("all")]}) as gateway,
    ):
        await ask(gateway.address, get("/", GIVEN, "tracestate: a=1", "tracestate: b=2"))
        await ask(gateway.address, get("/", "traceparent: 00-x", "tracestate: a=1"))
        await ask(gateway.address, get("/", "tracestate: a=1"))
        going_on, broken, lone = app.requests
        assert (going_on.value("traceparent") or b"").startswith(f"00-{TRACE}-".encode())
        assert SPAN.encode() not in (going_on.value("traceparent") or b"")
        assert going_on.values("tracestate") == [b"a=1,b=2"]
        for message in (broken, lone):
            assert message.values("tracestate") == []
            assert TRACE.encode() not in (message.value("traceparent") or b"")


# -- spans


class Collector:
    """What a collector was sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[bytes] = []
        self.port = 0

    async def script(self, conversation: Conversation) -> None:
        """Take batches; answer as was laid out, then 200."""
        while True:
            message = await conversation.request()
            assert message.target == "/v1/traces"
            answer = self.answers.pop(0) if self.answers else response(200)
            self.headers.append({name: (message.value(name) or b"").decode() for name in message.names()})
            if answer.startswith(b"HTTP/1.1 200"):
                self.requests.append(ExportTraceServiceRequest.FromString(message.body))
            await conversation.send(answer)

    @property
    def spans(self) -> list[Span]:
        """Every span."""
        return [
            span
            for each in self.requests
            for resource in each.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def attributes(span: Span) -> dict[str, Any]:
    """A span's attributes as plain values."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "") for item in span.attributes}


Laid = Callable[..., dict[str, Any]]


@asynccontextmanager
async def collecting() -> AsyncGenerator[tuple[Collector, Laid]]:
    """A collector, and a way to make documents of a gateway that sends to it."""
    collector = Collector()
    async with upstream(collector.script) as server:
        collector.port = server.port

        def document(*ports: int, sample: float = 1.0, **more: Any) -> dict[str, Any]:
            tracing = {"endpoint": f"http://127.0.0.1:{server.port}", "sample": sample, "headers": {"x-tenant": "t"}}
            tracing |= more.pop("tracing", {})
            server_settings = {"tracing": tracing, **more.pop("server", {})}
            return {"server": server_settings, "clusters": {"app": cluster(*ports)}, "routes": [route("all")], **more}

        yield collector, document


async def spans_of(collector: Collector, count: int) -> list[Span]:
    """The spans, once there are so many."""
    await wait_until(lambda: len(collector.spans) >= count, what=f"{count} spans")
    assert len(collector.spans) == count
    return collector.spans


async def test_a_sampled_request_has_a_span_of_its_own_and_one_of_its_attempt() -> None:
    async with (
        collecting() as (collector, document),
        upstream(response(201, body=b"12345")) as app,
        running_gateway(document(app.port)) as gateway,
    ):
        await ask(gateway.address, request("POST", "/orders/7?secret=x", "user-agent: curl/8", body=b"abc"))
        server, client = await spans_of(collector, 2)
        assert server.name == "POST /*"
        assert server.kind == Span.SPAN_KIND_SERVER
        assert server.parent_span_id == b""
        told = attributes(server)
        assert told["http.request.method"] == "POST"
        assert told["http.response.status_code"] == 201
        assert (told["url.path"], told["url.scheme"]) == ("/orders/7", "http")
        assert (told["server.address"], told["client.address"]) == ("test", "127.0.0.1")
        assert (told["toska.route"], told["user_agent.original"]) == ("all", "curl/8")
        assert (told["http.request.body.size"], told["http.response.body.size"]) == (3, 5)
        assert client.kind == Span.SPAN_KIND_CLIENT
        assert client.parent_span_id == server.span_id
        assert client.trace_id == server.trace_id
        # The upstream's own spans hang below the attempt's.
        sent = (app.requests[0].value("traceparent") or b"").decode()
        assert sent == f"00-{server.trace_id.hex()}-{client.span_id.hex()}-01"
        told = attributes(client)
        assert (told["server.address"], told["server.port"]) == ("127.0.0.1", app.port)
        assert told["url.full"] == f"http://127.0.0.1:{app.port}/orders/7"
        assert told["toska.cluster"] == "app"
        for span in (server, client):
            assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10e9
            assert span.status.code == Status.STATUS_CODE_UNSET
        assert server.start_time_unix_nano <= client.start_time_unix_nano <= client.end_time_unix_nano
        resource = collector.requests[0].resource_spans[0].resource
        assert {item.key: item.value.string_value for item in resource.attributes}["service.name"] == "toska-gateway"
        assert collector.headers[0]["content-type"] == "application/x-protobuf"
        assert collector.headers[0]["x-tenant"] == "t"

        async def counted() -> bool:
            return await gateway.metric("traces_exported_total") == 1

        await wait_until(counted)
        page = await gateway.supervisor.metrics(openmetrics=True)
        assert f'# {{trace_id="{server.trace_id.hex()}"}}' in page


async def test_each_attempt_has_a_span_of_its_own_id() -> None:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        conversation.reset()

    dead = free_port()
    async with (
        collecting() as (collector, document),
        upstream(script) as bad,
        upstream(response(200)) as good,
        running_gateway(document(bad.port, good.port)) as gateway,
    ):
        # The first that is chosen cannot be known, so every request may meet the bad one; one of them does.
        for _ in range(20):
            await ask(gateway.address, get())
            if bad.requests and good.requests:
                break
        await wait_until(lambda: any(attributes(span).get("http.request.resend_count") for span in collector.spans))
        repeat = next(span for span in collector.spans if attributes(span).get("http.request.resend_count"))
        first = next(
            span
            for span in collector.spans
            if span.parent_span_id == repeat.parent_span_id and span.span_id != repeat.span_id
        )
        assert attributes(first)["error.type"] == "reset"
        assert first.status.code == Status.STATUS_CODE_ERROR
        assert attributes(repeat)["http.response.status_code"] == 200
        parents = {(message.value("traceparent") or b"").decode() for message in (*bad.requests, *good.requests)}
        assert f"00-{first.trace_id.hex()}-{first.span_id.hex()}-01" in parents
        assert f"00-{repeat.trace_id.hex()}-{repeat.span_id.hex()}-01" in parents
        collector.requests.clear()
        await gateway.serve(document(dead))
        await ask(gateway.address, get())
        server, *calls = await spans_of(collector, 2)
        assert server.status.code == Status.STATUS_CODE_ERROR
        assert attributes(server)["error.type"] == "upstream-connect-failed"
        assert [attributes(call)["error.type"] for call in calls] == ["connect_refused"]


async def test_a_trusted_callers_decision_counts_and_a_strangers_does_not() -> None:
    trusting = {"trusted_proxies": ["127.0.0.1/32"]}
    unsampled = GIVEN[:-2] + "00"
    async with collecting() as (collector, document), upstream() as app, running_gateway() as gateway:
        await gateway.serve(document(app.port, sample=0.0, server=trusting))
        await ask(gateway.address, get("/", GIVEN, "tracestate: a=1"))
        server, _ = await spans_of(collector, 2)
        assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, SPAN)
        assert server.trace_state == "a=1"
        await gateway.serve(document(app.port, sample=1.0, server=trusting))
        await ask(gateway.address, get("/", unsampled))
        await gateway.serve(document(app.port, sample=0.0))
        await ask(gateway.address, get("/", GIVEN))
        flags = [(message.value("traceparent") or b"")[-2:] for message in app.requests]
        assert flags == [b"01", b"00", b"00"]
        await gateway.serve(document(app.port, sample=1.0))
        await ask(gateway.address, get("/last", unsampled))
        await spans_of(collector, 4)


async def test_batches_that_are_refused_for_now_are_sent_again_and_others_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(span_exporter, "_PAUSE_S", 0.05)
    async with collecting() as (collector, document), upstream() as app, running_gateway(document(app.port)) as gateway:
        collector.answers = [response(503), response(429, "retry-after: 0"), response(200)]
        await ask(gateway.address, get())
        await spans_of(collector, 2)
        collector.answers = [response(400)]
        await ask(gateway.address, get())

        async def counted() -> bool:
            return await gateway.metric("traces_dropped_total") == 1

        await wait_until(counted)
        assert await gateway.metric("traces_exported_total") == 1
        assert len(collector.spans) == 2


async def test_a_collector_that_is_away_costs_no_request_and_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_exporter, "MAX_WAITING", 10)
    monkeypatch.setattr(span_exporter, "_LAST_S", 0.1)
    tracing = {"endpoint": f"http://127.0.0.1:{free_port()}", "sample": 1}
    async with upstream(response(200) * 1) as app:
        document = {"server": {"tracing": tracing}, "clusters": {"app": cluster(app.port)}, "routes": [route("all")]}
        async with running_gateway(document) as gateway:
            for _ in range(30):
                assert (await ask(gateway.address, get())).status == 200

            async def dropped() -> bool:
                return await gateway.metric("traces_dropped_total") == 20

            await wait_until(dropped)


async def test_credentials_are_read_from_files_as_they_are_now(tmp_path: Path) -> None:
    token = tmp_path / "token"
    files = {"tracing": {"header_files": {"authorization": str(token)}}}
    async with collecting() as (collector, document), upstream() as app, running_gateway() as gateway:
        await gateway.serve(document(app.port, **files))
        for secret in ("Bearer one", "Bearer two"):
            token.write_text(secret + "\n")
            before = len(collector.headers)
            await ask(gateway.address, get())
            await wait_until(lambda before=before: len(collector.headers) > before)
        assert [headers["authorization"] for headers in collector.headers] == ["Bearer one", "Bearer two"]


def test_a_credential_among_the_headers_is_refused_since_routing_can_be_read() -> None:
    tracing = {"endpoint": "http://127.0.0.1:4318", "headers": {"authorization": "Bearer x"}}
    with pytest.raises(InvalidDocument) as refused:
        snapshot_of({"server": {"tracing": tracing}, "routes": []})
    assert "header_files" in str(refused.value.problems)


async def test_a_gateways_credentials_for_its_collector_do_not_reach_workers() -> None:
    tracing = {
        "endpoint": "http://127.0.0.1:4318",
        "headers": {"x-tenant": "secret"},
        "header_files": {"authorization": "secret"},
    }
    snapshot = snapshot_of({"server": {"tracing": tracing}, "routes": []})
    table = next(iter(messages(Known(), snapshot, frozenset())))
    assert table["server"]["tracing"] == {"sample": 0.01}
