"""What every test shares: the event loop that production runs on, and a folder for a mesh's state."""

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import structlog
from toska_tests.alone import Turns
from toska_tests.postgres_servers import PostgresServer, postgres_server
from toska_tests.rabbit_servers import RabbitServer, rabbit_server

# A shell without job control starts what runs in the background deaf to Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Images of containers often forbid it, and then each of the hundreds of programs that tests start spends most of its
# start on compiling what the one before it has compiled.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Where a run has several workers, they have these of the first process's library of the command line.
for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)


_HERE = Path(__file__)
_turns = Turns(_HERE, _HERE.with_name("toska_tests") / "alone.py") if "PYTEST_XDIST_WORKER" in os.environ else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where several workers test beside one another, see that tests marked `alone` are."""
    if _turns is None:
        return (yield)
    with _turns.turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_unconfigure() -> None:
    """Leave nothing open."""
    if _turns is not None:
        _turns.close()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """asyncio on uvloop, which is what every process of the mesh runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """Logging as it is where nobody has set it up, whatever a test before has done."""
    structlog.reset_defaults()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own, with the user's state folder and the environment kept out of it."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("TOSKA_HOME", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return folder


@pytest.fixture(scope="session")
def postgres() -> Generator[PostgresServer]:
    """One server for the session; each test makes a database of its own. Whoever stops it starts it again."""
    with postgres_server() as server:
        server.launch()
        yield server


@pytest.fixture(scope="session")
def rabbit() -> Generator[RabbitServer]:
    """One broker for the session; each test keeps to a namespace of its own. Whoever stops it starts it again."""
    with rabbit_server() as server:
        server.launch()
        yield server
