"""`toska logs`: the lines of a mesh's services, in the order in which they were written.

Reads `home/logs/<service>.jsonl`, rotated files included as far as they are needed.
"""

import heapq
import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from toska_common.errors import ConfigurationError

_POLL_S = 0.2
_COLORS = {"debug": "2", "info": "36", "warning": "33", "error": "31", "critical": "1;31"}
_SHOWN_APART = frozenset({"timestamp", "level", "service", "event", "exception"})
_LEFT_OUT = frozenset({"span_id", "logger"})
"""For programs; `--json` has them."""


def show_logs(folder: Path, service: str | None, *, lines: int, follow: bool, raw: bool) -> None:
    """Write the last `lines` lines of one service, or of all, and with `follow` what comes, until interrupted.

    Raises:
        ConfigurationError: There is no log of that name.
    """
    paths = _find_files(folder, service)
    formatter = _Formatter(sys.stdout, raw=raw)
    tails = [Tail(path, lines) for path in paths]
    newest = deque(heapq.merge(*(tail.last_lines() for tail in tails), key=_timestamp), maxlen=lines)
    formatter.write(newest)
    while follow:
        time.sleep(_POLL_S)  # no file notification that Linux and macOS share
        known = {tail.path for tail in tails}
        tails += [Tail(path, 0) for path in _find_files(folder, service) if path not in known]
        formatter.write(heapq.merge(*(tail.new_lines() for tail in tails), key=_timestamp))


class Tail:
    """The end of one log file, followed over its rotation."""

    def __init__(self, path: Path, lines: int) -> None:
        self.path = path
        self._lines = lines
        self._offset = 0
        self._inode = 0
        self._rest = b""

    def last_lines(self) -> list[str]:
        """The last lines, from the rotated files too where the current one has too few."""
        found = deque(self.new_lines(), maxlen=self._lines)
        number = 1
        while len(found) < self._lines:
            older = self.path.with_name(f"{self.path.name}.{number}")
            if not older.exists():
                break
            text = older.read_text(encoding="utf-8", errors="replace")
            found.extendleft(reversed(text.splitlines()[-(self._lines - len(found)) :]))
            number += 1
        return list(found)

    def new_lines(self) -> list[str]:
        """Whole lines that were written since the last call."""
        try:
            with self.path.open("rb") as file:
                inode = self.path.stat().st_ino
                if inode != self._inode:  # the file was rotated away: this is a new one
                    self._inode, self._offset, self._rest = inode, 0, b""
                file.seek(self._offset)
                chunk = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [line.decode(errors="replace") for line in lines if line]


class _Formatter:
    """Writes lines as they are, or for a person."""

    def __init__(self, stream: TextIO, *, raw: bool) -> None:
        self._stream = stream
        self._raw = raw
        self._colored = stream.isatty()

    def write(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._stream.write((line if self._raw else self._render(line)) + "\n")
        self._stream.flush()

    def _render(self, line: str) -> str:
        fields = _fields(line)
        if not fields:
            return line
        level = str(fields.get("level", "info"))
        head = f"{str(fields.get('timestamp', ''))[11:23]} {level:<8}"
        if self._colored:
            head = f"\x1b[{_COLORS.get(level, '0')}m{head}\x1b[0m"
        rest = " ".join(f"{key}={_text(value)}" for key, value in fields.items() if key not in _SHOWN_APART | _LEFT_OUT)
        line = f"{head} {fields.get('service', ''):<10} {fields.get('event', '')} {rest}".rstrip()
        return f"{line}\n{fields['exception']}" if "exception" in fields else line


def _find_files(folder: Path, service: str | None) -> list[Path]:
    if service is None:
        return sorted(folder.glob("*.jsonl"))
    path = folder / f"{service}.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.jsonl")))
        raise ConfigurationError(f"there is no log of {service!r}; there is {known or 'none yet'}")
    return [path]


def _fields(line: str) -> Mapping[str, Any]:
    try:
        fields: Any = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def _timestamp(line: str) -> str:
    return str(_fields(line).get("timestamp", ""))


def _text(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value, default=str)
    return json.dumps(value) if any(character in value for character in ' "\n') else value
