"""The access log: one whole line of JSON for each request, whatever clients send and whatever becomes of its file."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from toska_gateway.supervisor import Supervisor
from toska_gateway.worker.access_log import quote
from toska_gateway.worker.log_writer import MAX_WAITING, LogWriter
from toska_tests.gateways import Gateway, cluster, route, running_gateway, snapshot_of
from toska_tests.raw_http import Conversation, ask, connected, get, request, response, upstream
from toska_tests.waiting import wait_until

MEMBERS = {
    "time", "client", "method", "host", "path", "status", "bytes_in", "bytes_out", "duration_ms", "route", "cluster",
    "upstream", "upstream_ms", "attempts", "request_id", "trace_id",
}  # fmt: skip


def logged(file: Path) -> list[dict[str, Any]]:
    """Every line; each has to be whole."""
    if not file.exists():
        return []
    text = file.read_bytes()
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


async def lines_of(file: Path, count: int = 1) -> list[dict[str, Any]]:
    """The lines, once there are so many."""
    await wait_until(lambda: len(logged(file)) >= count, what=f"{count} lines in {file}")
    return logged(file)


@asynccontextmanager
async def logging_gateway(file: Path | str, *ports: int, workers: int = 1, **settings: Any) -> AsyncGenerator[Gateway]:
    """A gateway with an access log, and some routes to look at it by."""
    document = {
        "server": {"access_log": {"path": str(file), **settings}, "trusted_proxies": ["127.0.0.2/32"]},
        "clusters": {"app": cluster(*ports)},
        "routes": [
            route("quiet", "/quiet", policies={"access_log": {"sample": 0}}),
            {"name": "direct", "match": {"path": "/direct"}, "respond": {"body": "hello"}},
            route("limited", "/limited", policies={"rate_limit": {"requests": 1, "per": "1h", "burst": 1}}),
            route("all"),
        ],
    }
    async with running_gateway(document, workers=workers) as gateway:
        await wait_until(lambda: [one.state for one in gateway.supervisor.workers()] == ["running"] * workers)
        yield gateway


async def test_a_line_says_who_asked_for_what_and_what_became_of_it(tmp_path: Path) -> None:
    file = tmp_path / "access.jsonl"
    async with upstream(response(201, body=b"12345")) as app, logging_gateway(file, app.port) as gateway:
        message = request(
            "POST", "/orders/7?token=x", "user-agent: curl/8", "authorization: Bearer abc", "cookie: a=b", body=b"abc"
        )
        await ask(gateway.address, message)
        (line,) = await lines_of(file)
        assert set(line) == MEMBERS | {"user_agent"}
        assert (line["method"], line["host"], line["path"]) == ("POST", "test", "/orders/7")
        assert (line["status"], line["bytes_in"], line["bytes_out"]) == (201, 3, 5)
        assert (line["route"], line["cluster"], line["upstream"]) == ("all", "app", f"127.0.0.1:{app.port}")
        assert (line["client"], line["user_agent"], line["attempts"]) == ("127.0.0.1", "curl/8", 1)
        assert line["trace_id"] == line["request_id"] == app.requests[0].value("x-request-id").decode()  # type: ignore[union-attr]
        assert 0 < line["upstream_ms"] <= line["duration_ms"] < 5000
        assert line["time"].endswith("Z") and len(line["time"]) == len("2026-01-01T00:00:00.000Z")
        assert file.stat().st_mode & 0o777 == 0o640


async def test_the_gateways_own_answers_have_lines_with_their_code(tmp_path: Path) -> None:
    file = tmp_path / "access.jsonl"
    async with upstream() as app, logging_gateway(file, app.port) as gateway:
        direct = await ask(gateway.address, get("/direct"))
        assert direct.body == b"hello"
        await ask(gateway.address, get("/limited"))
        refused = await ask(gateway.address, get("/limited"))
        malformed = await ask(gateway.address, b"GET / HTTP/1.1\r\n\r\n")
        escaped = await ask(gateway.address, get("/a%2Fb"))
        lines = await lines_of(file, 5)
        assert [line["status"] for line in lines] == [200, 200, 429, 400, 400]
        assert [line.get("error") for line in lines] == [None, None, "rate-limited", "bad-host", "bad-target"]
        assert [line["route"] for line in lines] == ["direct", "limited", "limited", "(none)", "(none)"]
        assert lines[0]["bytes_out"] == 5
        assert lines[3]["path"] == ""
        for line, answer in zip(lines[2:], (refused, malformed, escaped), strict=True):
            assert line["trace_id"] == json.loads(answer.body)["trace_id"]
            assert line["bytes_out"] == len(answer.body)


async def test_what_failed_is_told_with_its_reason(tmp_path: Path) -> None:
    async def script(conversation: Conversation) -> None:
        message = await conversation.request()
        if message.target == "/reset":
            conversation.reset()
        elif message.target == "/short":
            await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
            conversation.cut()
        else:
            await conversation.until_closed()

    file = tmp_path / "access.jsonl"
    async with upstream(script) as app, logging_gateway(file, app.port, sample=0) as gateway:
        answer = await ask(gateway.address, request("POST", "/reset"))
        async with connected(gateway.address) as client:
            await client.send(get("/short"))
            await client.head()
            assert await client.exactly(3) == b"abc"
            assert await client.is_closed()
        async with connected(gateway.address) as client:
            await client.send(get("/gone"))
            await wait_until(lambda: app.requests[-1].target == "/gone")
            client.reset()
        await wait_until(lambda: len(logged(file)) >= 2)
        await ask(gateway.address, get("/direct"))
        lines = {line["path"]: line for line in logged(file)}
        # (sample is 0: these have lines because they failed; who went away before an answer is no failure of ours)
        assert set(lines) == {"/reset", "/short"}
        assert (lines["/reset"]["status"], lines["/reset"]["error"]) == (502, "upstream-reset")
        assert lines["/reset"]["trace_id"] == json.loads(answer.body)["trace_id"]
        assert (lines["/short"]["status"], lines["/short"]["error"]) == (200, "cut-off")
        assert lines["/short"]["bytes_out"] == 3


@pytest.mark.parametrize(
    ("target", "agent", "path", "told"),
    [
        ('/"x%22,%22admin%22:true', '","status":200,"x":"', "/%22x%22,%22admin%22:true", '","status":200,"x":"'),
        ("/%C3%A9", "caf\\xc3\\xa9 \\\\ \\\\n", "/%C3%A9", None),
        ("/a%20b", "a\tb\x7f"[:3], "/a%20b", "a\tb"),
        ("/" + "x" * 5000, "y" * 5000, "/" + "x" * 5000, "y" * 512),
        ("/%F0%9F%98%80", "\x1b]0;owned"[1:], "/%F0%9F%98%80", "]0;owned"),
    ],
)
async def test_no_client_can_forge_or_break_a_line(
    tmp_path: Path, target: str, agent: str, path: str, told: str | None
) -> None:
    file = tmp_path / "access.jsonl"
    async with upstream() as app, logging_gateway(file, app.port) as gateway:
        await ask(gateway.address, get(target, f"user-agent: {agent}"))
        (line,) = await lines_of(file)
        assert line["path"] == path
        assert line["status"] == 200
        assert "admin" not in line
        if told is not None:
            assert line["user_agent"] == told


@pytest.mark.parametrize("value", [b"\xff\xfe", b"\x1b[2J", b"\x00\x7f", b'\\"', b"\xe2\x80\xa8", b"a" * 600])
def test_whatever_bytes_come_the_text_of_them_is_plain_ascii(value: bytes) -> None:
    text = quote(value)
    assert text.isascii()
    assert all(0x20 <= byte < 0x7F for byte in text)
    assert json.loads(text) == value[:512].decode("utf-8", "replace")


async def test_credentials_are_masked_and_a_query_is_told_only_on_request(tmp_path: Path) -> None:
    secret = "toska_admin_" + "s" * 40
    without, with_query = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    async with upstream() as app:
        async with logging_gateway(without, app.port) as gateway:
            await ask(gateway.address, get(f"/{secret}?token={secret}", f"user-agent: x {secret}"))
            (line,) = await lines_of(without)
            assert "query" not in line
            assert secret not in without.read_text()
            assert line["path"] == "/***"
        async with logging_gateway(with_query, app.port, query=True) as gateway:
            await ask(gateway.address, get("/a?page=2&access_token=abc&API_KEY=d&x=1&code=z"))
            (line,) = await lines_of(with_query)
            assert line["query"] == "page=2&access_token=***&API_KEY=***&x=1&code=***"


async def test_a_trusted_proxys_word_on_client_and_request_id_is_told_and_escaped(tmp_path: Path) -> None:
    file = tmp_path / "access.jsonl"
    async with upstream() as app, logging_gateway(file, app.port) as gateway:
        fields = ('x-request-id: a"b', "x-forwarded-for: 203.0.113.9")
        await ask(gateway.address, get("/", *fields))
        document = snapshot_of(
            {
                "server": {"access_log": {"path": str(file)}, "trusted_proxies": ["127.0.0.1/32"]},
                "clusters": {"app": cluster(app.port)},
                "routes": [route("all")],
            }
        )
        await gateway.supervisor.apply(document)
        await ask(gateway.address, get("/", *fields))
        first, second = await lines_of(file, 2)
        assert (first["client"], first["request_id"]) == ("127.0.0.1", first["trace_id"])
        assert (second["client"], second["request_id"]) == ("203.0.113.9", 'a"b')


async def test_a_sample_is_a_sample_and_a_route_may_be_quiet(tmp_path: Path) -> None:
    file = tmp_path / "access.jsonl"
    async with upstream(response(200) * 1) as app, logging_gateway(file, app.port, sample=0.5) as gateway:
        async with connected(gateway.address) as client:
            for _ in range(400):
                await client.ask(get("/sampled"))
        for _ in range(5):
            await ask(gateway.address, get("/quiet"))
        await gateway.supervisor.renew()  # whoever ends writes all it has
        await wait_until(lambda: [one.state for one in gateway.supervisor.workers()] == ["running"])
        paths = Counter(line["path"] for line in logged(file))
        assert set(paths) == {"/sampled"}
        assert 140 < paths["/sampled"] < 260  # six standard deviations


async def test_every_request_has_one_whole_line_while_the_file_is_rotated_under_two_workers(tmp_path: Path) -> None:
    file = tmp_path / "access.jsonl"
    rotated: list[Path] = []
    async with upstream(response(200, body=b"x")) as app, logging_gateway(file, app.port, workers=2) as gateway:
        asked = 0
        stop = asyncio.Event()

        async def load(name: str) -> None:
            nonlocal asked
            while not stop.is_set():
                async with connected(gateway.address) as client:
                    for number in range(50):
                        # Long enough that a batch is more than a pipe or page holds.
                        answer = await client.ask(get(f"/{name}/{number}/{'p' * 300}"))
                        asked += 1
                        if answer.value("connection") == b"close":
                            break

        async with asyncio.TaskGroup() as group:
            for name in ("a", "b", "c", "d"):
                group.create_task(load(name))
            for turn in range(6):
                await wait_until(lambda turn=turn: asked > 300 * (turn + 1) and file.exists())
                rotated.append(tmp_path / f"access.{turn}.jsonl")
                file.rename(rotated[-1])
                if turn == 3:
                    await gateway.supervisor.renew()
            stop.set()
        await gateway.supervisor.renew()
        await wait_until(lambda: [one.state for one in gateway.supervisor.workers()] == ["running"] * 2)
        lines = [line for each in (*rotated, file) for line in logged(each)]
        assert len(lines) == asked == await gateway.metric("requests_total", route="all")
        assert len({line["trace_id"] for line in lines}) == asked
        assert all(len(logged(each)) for each in rotated)
        assert await gateway.metric("access_log_dropped_total") == 0


async def test_a_new_file_that_whoever_rotates_has_made_is_written_to(tmp_path: Path) -> None:
    file, old = tmp_path / "access.jsonl", tmp_path / "access.jsonl.1"
    async with upstream(response(200)) as app, logging_gateway(file, app.port) as gateway:
        await ask(gateway.address, get("/before"))
        await lines_of(file)
        file.rename(old)
        file.touch(mode=0o600)
        await ask(gateway.address, get("/after"))
        assert [line["path"] for line in await lines_of(file)] == ["/after"]
        assert [line["path"] for line in logged(old)] == ["/before"]
        assert file.stat().st_mode & 0o777 == 0o600


async def test_a_full_disk_costs_lines_and_no_request() -> None:
    async with upstream(response(200, body=b"x")) as app, logging_gateway("/dev/full", app.port) as gateway:
        for _ in range(20):
            assert (await ask(gateway.address, get())).status == 200

        async def dropped() -> bool:
            return await gateway.metric("access_log_dropped_total") == 20

        await wait_until(dropped)


async def test_a_file_that_cannot_be_opened_is_said_once_and_written_once_it_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "later"
    file = folder / "access.jsonl"
    async with upstream(response(200, body=b"x")) as app, logging_gateway(file, app.port) as gateway:
        for turn in range(3):
            await ask(gateway.address, get())

            async def dropped(turn: int = turn) -> bool:
                return await gateway.metric("access_log_dropped_total") == turn + 1

            await wait_until(dropped)
        folder.mkdir()
        await ask(gateway.address, get("/now"))
        assert [line["path"] for line in await lines_of(file)] == ["/now"]
        output = ""

        def said() -> bool:
            nonlocal output
            output += capsys.readouterr().out
            return "access_log_writable" in output

        await wait_until(said)
        assert output.count("access_log_unwritable") == 1


async def test_a_reader_that_stands_still_costs_lines_and_no_memory(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR)  # open at both ends, and nobody reads
    try:
        writer = LogWriter(str(pipe))
        line = b"x" * 1023 + b"\n"
        for _ in range(MAX_WAITING // 65536 + 10):
            writer.put([line] * 64, 65536)
        assert writer.problem()
        assert 0 < writer.take_dropped() <= 10 * 64
        os.set_blocking(end, False)

        def drained() -> bool:
            try:
                while os.read(end, 1 << 20):
                    pass
            except BlockingIOError:
                pass
            writer.put([b"y\n"], 2)
            return not writer.problem()

        await wait_until(drained)
        writer.close(0.0)
        await wait_until(drained)
    finally:
        os.close(end)


async def test_a_write_that_stops_halfway_leaves_whole_lines(tmp_path: Path) -> None:
    import resource

    file = tmp_path / "limited"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        writer = LogWriter(str(file))
        writer.put([b"%097d\n" % number for number in range(15)], 15 * 98)
        await wait_until(lambda: bool(writer.trouble))
        assert writer.take_dropped() == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    writer.put([b"after\n"], 6)
    await wait_until(lambda: file.read_bytes().endswith(b"after\n"))
    writer.close(1.0)
    assert [len(line) for line in file.read_bytes().splitlines()] == [97] * 10 + [5]


async def test_a_log_that_is_moved_or_turned_off_by_new_routing_loses_nothing(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    async with upstream(response(200, body=b"x")) as app, running_gateway() as gateway:
        for file in (one, two, None):
            server = {} if file is None else {"access_log": {"path": str(file)}}
            await gateway.serve({"server": server, "clusters": {"app": cluster(app.port)}, "routes": [route("all")]})
            for _ in range(3):
                await ask(gateway.address, get())
        assert len(await lines_of(one, 3)) == 3
        assert len(await lines_of(two, 3)) == 3


async def test_a_relative_path_begins_in_the_folder_of_the_routing_file(tmp_path: Path) -> None:
    supervisor = Supervisor("127.0.0.1", 0, 1, tls_folder=tmp_path)
    async with upstream() as app, supervisor.run():
        document = {
            "server": {"access_log": {"path": "logs.jsonl"}},
            "clusters": {"app": cluster(app.port)},
            "routes": [route("all")],
        }
        await supervisor.apply(snapshot_of(document))
        await ask(supervisor.address, get("/here"))
        assert [line["path"] for line in await lines_of(tmp_path / "logs.jsonl")] == ["/here"]
