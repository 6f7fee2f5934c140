"""A real PostgreSQL for tests, which can be killed, stopped in its tracks and started again with what it held."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from toska_tests import parts
from toska_tests.other_users import find_user, give, run_as
from toska_tests.ports import free_port
from toska_tests.waiting import wait_until

asyncpg: Any = import_module("asyncpg")  # it is typed in part, and wrongly

PASSWORD = "se:cret/word"
_ESCAPED = "se%3Acret%2Fword"


class PostgresServer:
    """One server with a cluster of its own; it refuses to be root's, so then it is run as another user.

    Args:
        folder: Where its cluster is.
        durable: Whether a commit is on the disk, as it is by default but for tests, which lose none by a power cut.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._folder = folder
        self._synchronous = {} if durable else {"fsync": "off", "full_page_writes": "off"}
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = find_user("postgres", "nobody")

    def url(self, database: str = "postgres") -> str:
        """As `TOSKA_DATABASE_URL` has it, the same over restarts."""
        return f"postgresql://toska:{_ESCAPED}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch()
        await self.wait_until_ready()

    async def wait_until_ready(self) -> None:
        """Wait until it answers."""
        await wait_until(self.answers, what="PostgreSQL answers")

    def launch(self) -> None:
        """Start it, with a new cluster the first time."""
        if not (self._folder / "data").exists():
            self._make_cluster()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            "max_connections": "60",
            **self._synchronous,
        }
        command = [str(parts.postgres("postgres")), "-D", str(self._folder / "data")]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._process = self._popen(command, self._folder / "postgres.log")

    async def make_database(self) -> str:
        """An empty database of the caller's own; its URL."""
        await self.wait_until_ready()
        name = f"mesh_{uuid.uuid4().hex[:8]}"
        await self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    async def execute(self, statement: str, url: str = "") -> str:
        """Run one statement."""
        connection = await asyncpg.connect(url or self.url(), timeout=10)
        try:
            return await connection.execute(statement, timeout=10)
        finally:
            await connection.close()

    def kill(self) -> None:
        """End it at once, with all its processes: connections are reset, and new ones refused."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait(timeout=10)
            self._process = None
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop it in its tracks: connections stand, and nothing is answered."""
        for process in self._family():
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._family():
            process.send_signal(signal.SIGCONT)

    def processes(self) -> list[psutil.Process]:
        """All that belong to it."""
        return self._family()

    def _family(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        server = psutil.Process(self._process.pid)
        return [server, *server.children(recursive=True)]

    async def answers(self) -> bool:
        """Whether it takes statements now."""
        if self._process is None:
            return False
        assert self._process.poll() is None, (self._folder / "postgres.log").read_text()
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            await self.execute("SELECT 1")
            return True
        return False

    def _make_cluster(self) -> None:
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        give(self._user, self._folder, secret)
        command = [str(parts.postgres("initdb")), "-D", str(self._folder / "data"), "-U", "toska", "--no-sync"]
        command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"]
        log = self._folder / "initdb.log"
        assert self._popen(command, log).wait(timeout=60) == 0, log.read_text()

    def _popen(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        return run_as(self._user, command, self._folder, log, {**os.environ, **parts.environment()})


@contextlib.contextmanager
def postgres_server(*, durable: bool = False) -> Generator[PostgresServer]:
    """A server of the block's own, not started yet, in a folder that another user can get to."""
    folder = Path(tempfile.mkdtemp(prefix="toska-postgres-"))
    folder.chmod(0o711)
    server = PostgresServer(folder, durable=durable)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
