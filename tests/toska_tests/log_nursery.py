"""A program that forks servers of an embedded log, so that each can be killed and its successor is there at once.

`python log_nursery.py`, then lines of `N HOME` on standard input: each forks a server that kills itself before the Nth
statement of its log, or does not if that is 0. It answers with the server's pid, and with `ended` once that is gone.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

import anyio
from toska_common.clock import SystemClock
from toska_common.logging import configure_logging
from toska_events.hosting import host_log
from toska_events.log import file, schema
from toska_events.settings import Settings


def _dying_at(statement: int) -> None:
    """Have this process die before its log's Nth statement."""
    if statement <= 0:
        return
    seen = 0
    really_connect = schema._connect  # pyright: ignore[reportPrivateUsage] - a place that every statement passes

    def connect(path: Path):
        connection = really_connect(path)

        def count(_sql: str) -> None:
            nonlocal seen
            seen += 1
            if seen == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        connection.set_trace_callback(count)
        return connection

    schema._connect = connect  # pyright: ignore[reportPrivateUsage]


async def _serve(home: Path) -> None:
    def give_up(error: Exception) -> None:
        os._exit(3)

    async with host_log(Settings(home=home), SystemClock(), give_up):
        await anyio.sleep_forever()


def _child(home: Path, statement: int) -> NoReturn:
    try:
        _dying_at(statement)
        anyio.run(_serve, home, backend_options={"use_uvloop": True})
    finally:
        os._exit(4)


def main() -> None:
    """Fork what is asked for until standard input is closed."""
    configure_logging(level="error", format="json", service="events")
    assert file.LogFile is not None
    for line in sys.stdin:
        statement, _, home = line.strip().partition(" ")
        pid = os.fork()
        if pid == 0:
            _child(Path(home), int(statement))
        print(pid, flush=True)
        assert threading.active_count() == 1  # forking beside threads would be a gamble
        os.waitpid(pid, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
