"""`toska logs` over the files that services write."""

import json
import os
import sys
from pathlib import Path

import pytest
from toska_cli.logs import Tail, show_logs
from toska_common.errors import ConfigurationError
from toska_common.log_files import LineFile
from toska_tests.programs import running
from toska_tests.waiting import wait_until

TOSKA = Path(sys.executable).with_name("toska")


def _line(service: str, second: int, event: str = "happened", **fields: object) -> str:
    return json.dumps(
        {
            "timestamp": f"2026-01-01T00:00:{second:02}.000000Z",
            "level": "info",
            "service": service,
            "event": event,
            **fields,
        }
    )


@pytest.fixture
def folder(home: Path) -> Path:
    logs = home / "logs"
    logs.mkdir()
    (logs / "router.jsonl").write_text(_line("router", 1, "first") + "\n" + _line("router", 3, "third") + "\n")
    (logs / "discovery.jsonl").write_text(
        _line("discovery", 2, "second", count=7, reason="two words", where={"port": 1}, span_id="f00") + "\n"
    )
    return logs


def _show(folder: Path, service: str | None = None, *, lines: int = 100, raw: bool = False) -> None:
    show_logs(folder, service, lines=lines, follow=False, raw=raw)


def test_lines_of_all_services_come_in_the_order_of_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _show(folder)
    assert capsys.readouterr().out.splitlines() == [
        "00:00:01.000 info     router     first",
        '00:00:02.000 info     discovery  second count=7 reason="two words" where={"port": 1}',
        "00:00:03.000 info     router     third",
    ]


def test_only_the_last_lines_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _show(folder, lines=2)
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()] == ["second", "third"]


def test_json_lines_come_as_they_were_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _show(folder, "discovery", raw=True)
    assert capsys.readouterr().out == (folder / "discovery.jsonl").read_text()


def test_a_traceback_keeps_its_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "gateway.jsonl").write_text(_line("gateway", 1, "crashed", exception="Traceback:\n  boom") + "\n")
    _show(folder, "gateway")
    assert capsys.readouterr().out.splitlines()[1:] == ["Traceback:", "  boom"]


def test_a_line_that_is_not_json_is_shown_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "gateway.jsonl").write_text("half a li\n")
    _show(folder, "gateway")
    assert capsys.readouterr().out == "half a li\n"


def test_rotated_files_are_read_as_far_as_needed(folder: Path) -> None:
    (folder / "router.jsonl.1").write_text("a\nb\nc\n")
    (folder / "router.jsonl").write_text("d\n")
    assert Tail(folder / "router.jsonl", 3).last_lines() == ["b", "c", "d"]


def test_following_goes_on_over_a_rotation(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "x.jsonl", max_bytes=20)
    file.write("before")
    tail = Tail(tmp_path / "x.jsonl", 10)
    assert tail.last_lines() == ["before"]
    file.write("a line that rotates")
    assert tail.new_lines() == ["a line that rotates"]
    file.close()


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("one\ntw")
    tail = Tail(path, 10)
    assert tail.last_lines() == ["one"]
    with path.open("a") as file:
        file.write("o\n")
    assert tail.new_lines() == ["two"]


def test_an_unknown_service_is_told_what_there_is(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no log of 'routr'; there is discovery, router"):
        _show(folder, "routr")


async def test_following_shows_what_comes_also_from_new_services(folder: Path) -> None:
    with running([TOSKA, "logs", "--follow", "--lines", "1"], folder.parent) as logs:
        assert "third" in await logs.line()
        with (folder / "router.jsonl").open("a") as file:
            file.write(_line("router", 4, "fourth") + "\n")
        (folder / "orders.jsonl").write_text(_line("orders", 5, "fifth") + "\n")
        await wait_until(lambda: "fourth" in logs.stdout and "fifth" in logs.stdout, what="new lines")
        os.killpg(logs.pid, 2)
        assert await logs.exit_code() == 130
