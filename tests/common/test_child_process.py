"""Children of a process with threads: started whatever locks its threads hold, noticed when they end."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest
from toska_common.child_process import start_child


async def test_a_child_is_started_though_a_handler_of_forks_would_wait_for_ever() -> None:
    script = textwrap.dedent("""
        import os, threading, uvloop
        from toska_common.child_process import start_child

        held = threading.Lock()
        held.acquire()
        os.register_at_fork(after_in_child=held.acquire)

        async def main():
            print(await start_child(["/bin/sh", "-c", "exit 3"]).wait())

        uvloop.run(main())
    """)
    with anyio.fail_after(30):
        child = start_child([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
        try:
            assert b"".join([chunk async for chunk in child.output()]) == b"3\n"
        finally:
            await child.kill_session()


async def test_output_comes_as_it_is_written_and_ends_with_the_child() -> None:
    child = start_child(["/bin/sh", "-c", "echo one; exec sleep 60"], stdout=subprocess.PIPE)
    output = child.output()
    assert await anext(output) == b"one\n"
    assert child.returncode is None
    child.kill()
    assert [chunk async for chunk in output] == []
    assert await child.wait() == child.returncode == -signal.SIGKILL


async def test_a_great_output_is_whole() -> None:
    child = start_child([sys.executable, "-c", "print('x' * 5_000_000)"], stdout=subprocess.PIPE)
    assert len(b"".join([chunk async for chunk in child.output()])) == 5_000_001
    assert await child.wait() == 0


async def test_many_children_end_at_once_and_each_is_told_apart() -> None:
    children = [start_child(["/bin/sh", "-c", f"exit {code}"]) for code in range(40)]
    with anyio.fail_after(30):
        assert [await child.wait() for child in children] == list(range(40))
    assert not any(Path(f"/proc/{child.pid}").exists() for child in children)


async def test_the_end_of_a_session_takes_along_what_was_started_in_it() -> None:
    command = ["/bin/sh", "-c", "sleep 60 & echo $!; wait"]
    child = start_child(command, stdout=subprocess.PIPE, start_new_session=True)
    output = child.output()
    assert int(await anext(output)) > 0
    await child.kill_session()
    with anyio.fail_after(20):  # the sleeper holds the pipe until it has gone
        assert [chunk async for chunk in output] == []
    assert child.returncode == -signal.SIGKILL


async def test_a_program_that_is_not_there_is_an_error_of_the_start() -> None:
    with pytest.raises(FileNotFoundError):
        start_child(["/no/such"])
