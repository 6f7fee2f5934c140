"""One mesh for each home."""

import os
import sys
from pathlib import Path

import pytest
from toska_cli.home import HomeLock, find_holder
from toska_common.errors import ConfigurationError
from toska_tests.programs import running

_HOLD = """
import sys, time
from pathlib import Path
from toska_cli.home import HomeLock
lock = HomeLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_home_is_claimed_by_one_process_at_a_time(tmp_path: Path) -> None:
    lock = HomeLock.acquire(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"already runs on {tmp_path} \(pid {os.getpid()}\).*toska down"):
        HomeLock.acquire(tmp_path)
    assert find_holder(tmp_path) == os.getpid()
    lock.close()
    assert find_holder(tmp_path) is None
    HomeLock.acquire(tmp_path).close()


async def test_a_killed_holder_leaves_no_claim(tmp_path: Path) -> None:
    with running([sys.executable, "-c", _HOLD, tmp_path], tmp_path) as holder:
        assert await holder.line() == "held"
        assert find_holder(tmp_path) == holder.pid
    assert find_holder(tmp_path) is None


def test_a_home_that_no_mesh_ever_used_has_no_holder(tmp_path: Path) -> None:
    assert find_holder(tmp_path / "none") is None
