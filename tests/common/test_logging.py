"""Logs: one form for all lines, secrets masked, and a file for each service."""

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from toska_common.log_files import LineFile, log_path
from toska_common.logging import configure_logging
from toska_common.redaction import redact_fields, redact_text
from toska_common.trace import TraceContext, current

WRITER = """
import sys, pathlib
from toska_common.log_files import LineFile, log_path
file = LineFile(log_path(pathlib.Path(sys.argv[1]), "shop"), max_bytes=1000, kept=100)
for number in range(500):
    file.write(f"{sys.argv[2]} {number:04}")
"""
TOKEN = "toska_admin_abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_of_structlog_and_of_the_standard_library_have_one_form() -> None:
    stream = io.StringIO()
    configure_logging(format="json", service="shop", stream=stream)
    structlog.get_logger("a").info("order_placed", order_id=7)
    logging.getLogger("somebody.elses").warning("disk at %d%%", 91)
    ours, theirs = lines_of(stream)
    assert list(ours)[:4] == ["timestamp", "level", "service", "event"]
    assert (ours["event"], ours["order_id"], ours["service"], ours["level"]) == ("order_placed", 7, "shop", "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("disk at 91%", "somebody.elses", "warning")
    assert ours["timestamp"].endswith("Z")


def test_lines_of_a_trace_carry_its_ids() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    token = current.set(TraceContext("a" * 32, "b" * 16))
    structlog.get_logger().info("inside")
    logging.getLogger("x").warning("inside too")
    current.reset(token)
    structlog.get_logger().info("outside")
    inside, too, outside = lines_of(stream)
    assert (inside["trace_id"], inside["span_id"]) == (too["trace_id"], too["span_id"]) == ("a" * 32, "b" * 16)
    assert "trace_id" not in outside


def test_only_what_is_important_enough_is_written_and_libraries_are_quiet() -> None:
    stream = io.StringIO()
    configure_logging(format="json", level="info", stream=stream)
    structlog.get_logger().debug("detail")
    logging.getLogger("x").debug("detail")
    logging.getLogger("httpx").info("HTTP Request: GET http://a/?token=x")
    assert stream.getvalue() == ""


def test_access_line_of_uvicorn_becomes_fields_without_its_query() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    arguments = ("127.0.0.1:5000", "GET", "/orders?card=4711", "1.1", 200)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *arguments)
    [line] = lines_of(stream)
    assert (line["event"], line["method"], line["path"], line["status"]) == ("request_served", "GET", "/orders", 200)
    assert "4711" not in stream.getvalue()


def test_crash_is_one_line_with_its_traceback_and_without_variables() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    hidden = "a local value"
    try:
        raise RuntimeError(len(hidden))
    except RuntimeError:
        structlog.get_logger().exception("task_crashed")
    [line] = lines_of(stream)
    assert "RuntimeError: 13" in line["exception"]
    assert "a local value" not in stream.getvalue()


def test_warning_of_python_goes_the_same_way() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [line["logger"] for line in lines_of(stream)] == ["py.warnings"]


def test_text_is_for_people() -> None:
    stream = io.StringIO()
    configure_logging(format="text", service="shop", stream=stream)
    structlog.get_logger().warning("order_lost", order_id=7)
    line = stream.getvalue()
    assert "[warning" in line
    assert "order_lost [shop] order_id=7" in line
    assert "\x1b" not in line


def test_format_is_text_on_a_terminal_and_json_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        configure_logging(stream=stream)
        structlog.get_logger().info("hello")
    assert "\x1b" in terminal.getvalue()
    assert lines_of(pipe)[0]["event"] == "hello"


@pytest.mark.parametrize(
    "text",
    [
        f"sent {TOKEN} along",
        "authorization: Bearer abcdef0123456789",
        "GET /v1/kv/a?token=abcdef0123456789&x=1",
        "amqp://guest:abcdef0123456789@host/",
    ],
)
def test_secrets_are_masked_wherever_they_stand(text: str) -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    log = structlog.get_logger()
    log.info("field", value={"deep": [text]})
    log.info(text)
    logging.getLogger("x").warning("%s", text)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        log.exception("crash")
    assert "abcdef" not in stream.getvalue()
    assert stream.getvalue().count("***") >= 4


def test_fields_named_like_secrets_are_masked_at_any_depth() -> None:
    fields = {"headers": [{"Authorization": "x", "accept": "y"}], "password": "z", "token": ""}
    assert redact_fields(fields) == {
        "headers": [{"Authorization": "***", "accept": "y"}],
        "password": "***",
        "token": "",
    }
    assert redact_text("toska_join_failed tokens=3") == "toska_join_failed tokens=3"


def test_each_service_of_a_process_has_its_own_file(tmp_path: Path) -> None:
    configure_logging(format="text", service="host", home=tmp_path, stream=io.StringIO())
    log = structlog.get_logger()
    log.info("of_the_host")
    with structlog.contextvars.bound_contextvars(service="router"):
        log.info("of_the_router", token=TOKEN)
        logging.getLogger("uvicorn.error").error("of the router too")
    log.bind(service="../../etc/passwd").info("of_nobody")
    found = {path.name: path.read_text().splitlines() for path in (tmp_path / "logs").glob("*.jsonl")}
    events = {name: [json.loads(line)["event"] for line in lines] for name, lines in found.items()}
    assert events == {
        "host.jsonl": ["of_the_host"],
        "router.jsonl": ["of_the_router", "of the router too"],
        "mesh.jsonl": ["of_nobody"],
    }
    assert (tmp_path / "logs" / "router.jsonl").stat().st_mode & 0o777 == 0o600


def test_unwritable_files_are_said_once_and_stop_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").write_text("in the way")
    stream = io.StringIO()
    configure_logging(format="json", home=tmp_path, stream=stream)
    for _ in range(3):
        structlog.get_logger().info("still_here")
    assert len(lines_of(stream)) == 3
    assert capsys.readouterr().err.count("log files cannot be written") == 1


def test_file_is_rotated_by_size_and_only_so_many_are_kept(tmp_path: Path) -> None:
    path = log_path(tmp_path, "shop")
    file = LineFile(path, max_bytes=100, kept=2)
    for number in range(40):
        file.write(f"line {number:04}")
    file.close()
    assert sorted(item.name for item in tmp_path.glob("shop*")) == ["shop.jsonl", "shop.jsonl.1", "shop.jsonl.2"]
    assert all(item.stat().st_size <= 100 for item in tmp_path.glob("shop*"))
    kept = [line for name in (".2", ".1", "") for line in (tmp_path / f"shop.jsonl{name}").read_text().splitlines()]
    assert kept == [f"line {number:04}" for number in range(40 - len(kept), 40)]


def test_processes_that_share_a_file_lose_no_line_when_it_rotates(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, name]) for name in ("one", "other")]
    assert [writer.wait(timeout=30) for writer in writers] == [0, 0]
    lines = [line for path in tmp_path.glob("shop.jsonl*") for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name} {number:04}" for name in ("one", "other") for number in range(500))


def test_deleted_file_is_begun_anew(tmp_path: Path) -> None:
    file = LineFile(log_path(tmp_path, "shop"))
    file.write("one")
    log_path(tmp_path, "shop").unlink()
    file.write("two")
    file.close()
    assert log_path(tmp_path, "shop").read_text() == "two\n"
