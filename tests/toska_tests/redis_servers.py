"""A real Redis for tests, which can be killed, stopped in its tracks and started again."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path

from toska_tests import parts
from toska_tests.ports import free_port
from toska_tests.waiting import wait_until


class RedisServer:
    """A server in memory alone: what it held is gone when it is killed.

    Args:
        folder: Where its log goes.
        password: What clients have to say; none if empty.
    """

    def __init__(self, folder: Path, password: str = "") -> None:
        self._folder = folder
        self._password = password
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As `TOSKA_CACHE_URL` has it, the same over restarts."""
        return f"redis://{f':{self._password}@' if self._password else ''}127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self._launch()
        await wait_until(self._answers, what="Redis answers")

    def _launch(self) -> None:
        command = [parts.program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no", *(["--requirepass", self._password] if self._password else [])]
        with (self._folder / "redis.log").open("ab") as log:
            environment = parts.environment() or None
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def kill(self) -> None:
        """End it at once: its connections are reset, and new ones refused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def freeze(self) -> None:
        """Stop it in its tracks: connections stand, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, with all that has come in meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send a command, and return the raw reply."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            if self._password:
                client.sendall(_packed("AUTH", self._password))
                assert client.recv(64) == b"+OK\r\n"
            client.sendall(_packed(*words))
            return client.recv(1 << 20)


def _packed(*words: str) -> bytes:
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)


@contextlib.contextmanager
def redis_server(folder: Path, password: str = "") -> Generator[RedisServer]:
    """A server of the block's own, not started yet."""
    server = RedisServer(folder, password)
    try:
        yield server
    finally:
        server.kill()
