"""What an Envoy engine keeps on disk and in shared memory: gone with it, or with the next one if it was killed."""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from toska_gateway.envoy.folder import RuntimeFolder
from toska_tests.envoys import running_envoy
from toska_tests.programs import running

_SHARED_MEMORY = Path("/dev/shm")
_OWNER = """
import json, time
from toska_gateway.envoy.folder import RuntimeFolder
folder = RuntimeFolder()
folder.note({family})
print(json.dumps(str(folder.path)), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


async def test_what_a_killed_gateway_left_is_removed_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    family = 2**20 + os.getpid()  # beyond those that gateways draw
    memory = _SHARED_MEMORY / f"envoy_shared_memory_{family * 10}"
    foreign = tmp_path / "toska-envoy-somebodys"
    foreign.mkdir(mode=0o700)
    with running([sys.executable, "-c", _OWNER.format(family=family)], tmp_path) as owner:
        left = Path(json.loads(await owner.line()))
        memory.write_bytes(b"x")
        try:
            RuntimeFolder().remove()
            assert left.is_dir() and memory.exists(), "its owner lives"
            owner.send(signal.SIGKILL)
            await owner.exit_code()
            RuntimeFolder().remove()
            assert not left.exists()
            assert not memory.exists()
            assert foreign.is_dir(), "nobody knows whose it is"
        finally:
            memory.unlink(missing_ok=True)


async def test_an_envoy_that_ends_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running_envoy() as envoy:
        (folder,) = tmp_path.glob("toska-envoy-*")
        await envoy.plane.renew()
        families = {int(line) for line in (folder / "families").read_text().split()}
        memory = [_SHARED_MEMORY / f"envoy_shared_memory_{family * 10}" for family in families]
        assert len(families) == 1
        assert not _SHARED_MEMORY.is_dir() or [one.exists() for one in memory] == [True]
    assert not folder.exists()
    assert not [one for one in memory if one.exists()]
