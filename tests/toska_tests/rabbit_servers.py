"""A real RabbitMQ for tests: killed, stopped in its tracks, restarted with what it held, or short of memory on demand.

Everything of it lives in one folder: its data, its logs, its cookie and its home. It has an epmd of its own, so that it
never meets another node of the machine, and none is left behind.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import aiormq
import psutil
from anyio.to_thread import run_sync

from toska_tests import parts
from toska_tests.other_users import find_user, give, run_as
from toska_tests.ports import free_port, is_free
from toska_tests.waiting import wait_until

USER, PASSWORD = "toska", "se:cret/word"
_ESCAPED = "se%3Acret%2Fword"
_PLUGINS = "[rabbitmq_management]."
_PIECES = {"memory": "{resource_limit, memory, node()}", "disk": "{resource_limit, disk, node()}"}


class RabbitServer:
    """One node with data of its own; it is run as another user if the tests are root's.

    Args:
        first: A node whose cookie and epmd it shares, so that they can be a cluster.
    """

    def __init__(self, folder: Path, *, first: "RabbitServer | None" = None) -> None:
        self._folder = folder
        self.port, self.management_port = free_port(), free_port()
        self._dist_port = free_port()
        self.node = f"toska-{self.port}@localhost"
        self._first = first
        self._epmd_port: int = free_port() if first is None else first._epmd_port
        self._cookie: str = secrets.token_hex(20) if first is None else first._cookie
        self._user = find_user("rabbitmq", "nobody")
        give(self._user, folder)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As `TOSKA_EVENTS_URL` has it, the same over restarts."""
        return self.url_at(self.port)

    @property
    def management_url(self) -> str:
        """Its management API, without a credential."""
        return f"http://127.0.0.1:{self.management_port}"

    def url_at(self, port: int, *, password: str = _ESCAPED) -> str:
        """The same by way of another port."""
        return f"amqp://{USER}:{password}@127.0.0.1:{port}/"

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch()
        await self.wait_until_ready()

    async def wait_until_ready(self) -> None:
        """Wait until it answers."""
        await wait_until(self.answers, within=90, what="RabbitMQ answers", every=0.05)

    def launch(self) -> None:
        """Start it, on what it held before."""
        self._lay_out()
        if self._first is None and self._epmd is None:
            self._epmd = self._popen([str(_erlang("epmd")), "-port", str(self._epmd_port), "-address", "127.0.0.1"])
        self._process = self._popen([str(_sbin("rabbitmq-server"))])

    async def answers(self) -> bool:
        """Whether it takes connections now."""
        if self._process is None:
            return False
        assert self._process.poll() is None, (self._folder / "output.log").read_text()
        # The client logs every refusal as an error; this asks first.
        if is_free(self.port):
            return False
        with contextlib.suppress(OSError, aiormq.AMQPError):
            connection = await aiormq.connect(self.url)
            await connection.close()
            return True
        return False

    def kill_node(self) -> None:
        """End the node at once, and leave the epmd that others may share."""
        for process in _family(self._process):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait(timeout=30)
            self._process = None

    async def restart(self) -> None:
        """Kill it, and start it again on the same data and ports."""
        self.kill()
        await self.start()

    async def restart_application(self) -> None:
        """Stop RabbitMQ in good order and start it again, in the same process of Erlang: that takes a second."""
        await run_sync(self.evaluate, "ok = rabbit:stop(), ok = rabbit:start().")
        await self.wait_until_ready()

    def processes(self) -> list[psutil.Process]:
        """All that belong to it."""
        return [*_family(self._process), *_family(self._epmd)]

    def kill(self) -> None:
        """End it at once, with all its processes: connections are reset, and new ones refused."""
        self.kill_node()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(timeout=30)
            self._epmd = None

    def freeze(self) -> None:
        """Stop it in its tracks: connections stand, and nothing is answered."""
        for process in _family(self._process):
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for process in _family(self._process):
            process.send_signal(signal.SIGCONT)

    def raise_alarm(self, piece: str = "memory") -> None:
        """Have it say that it is short of `memory` or `disk`: it reads from no publisher any more."""
        self.evaluate(f"rabbit_alarm:set_alarm({{{_PIECES[piece]}, []}}).")

    def clear_alarm(self, piece: str = "memory") -> None:
        """The other way round."""
        self.evaluate(f"rabbit_alarm:clear_alarm({_PIECES[piece]}).")

    def settle(self) -> None:
        """Have it write down which quorum queues there are.

        Its member of a queue's cluster is in memory alone for the first seconds, and a node that is killed in those
        comes back with a queue that has no leader and answers nobody (rabbitmq-server, issue 10070).
        """
        self.evaluate("[dets:sync(Table) || Table <- dets:all()].")

    def listen_by_tls(self, authority: Path, certificate: Path, key: Path, *, asks_clients: bool) -> int:
        """Take connections by TLS as well until it ends, perhaps only of clients that `authority` knows.

        Returns:
            The port.
        """
        port = free_port()
        files: dict[str, Path] = {}
        for name, file in {"cacertfile": authority, "certfile": certificate, "keyfile": key}.items():
            files[name] = self._folder / f"{port}-{name}.pem"
            self._put(files[name], file.read_text())
        options = ", ".join(f'{{{name}, "{file}"}}' for name, file in files.items())
        options += ", {verify, verify_peer}, {fail_if_no_peer_cert, true}" if asks_clients else ""
        self.evaluate(
            "{ok, _} = application:ensure_all_started(ssl), "
            f'ok = rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, [{options}], 1).'
        )
        return port

    def add_user(self, name: str, namespace: str) -> str:
        """Add somebody who may do all that an app has to, and publish no topics of the mesh itself; their URL."""
        self.evaluate(
            f'User = <<"{name}">>, By = <<"tests">>, '
            f'Names = <<"^({namespace}\\\\.|amq\\\\.(gen-.*|default)$)">>, '
            f'ok = rabbit_auth_backend_internal:add_user(User, <<"{name}">>, By), '
            'ok = rabbit_auth_backend_internal:set_permissions(User, <<"/">>, Names, Names, Names, By), '
            '[ok = rabbit_auth_backend_internal:set_topic_permissions(User, <<"/">>, Exchange, '
            '<<"^(?!mesh\\\\.)">>, <<".*">>, By) || Exchange <- ['
            + ", ".join(f'<<"{namespace}.{rest}">>' for rest in ("events", "events:low", "events:high", "ephemeral"))
            + "]]."
        )
        return f"amqp://{name}:{name}@127.0.0.1:{self.port}/"

    def evaluate(self, expression: str) -> str:
        """Run Erlang on the node."""
        command = [str(_erlang("erl_call")), "-n", self.node, "-c", self._cookie, "-timeout", "20", "-e"]
        done = subprocess.run(
            command,
            input=f"{expression}\n".encode(),
            capture_output=True,
            timeout=40,
            check=False,
            env=self._environment(),
            cwd=self._folder,
        )
        said = done.stdout.decode()
        assert done.returncode == 0, done.stderr.decode() + said
        assert not said.startswith("{error"), said
        return said

    def _lay_out(self) -> None:
        folder = self._folder
        contents = {
            "home/.erlang.cookie": self._cookie,
            "enabled_plugins": _PLUGINS,
            "rabbitmq.conf": _CONFIGURATION.format(
                port=self.port, management_port=self.management_port, user=USER, password=PASSWORD
            ),
        }
        for name, text in contents.items():
            if not (folder / name).exists():
                self._put(folder / name, text)

    def _put(self, path: Path, text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o400)
        give(self._user, path, path.parent)

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            **parts.environment(),
            **_unpacked_erlang(),
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # Then its script becomes the node, and does not wait beside it.
            "RUNNING_UNDER_SYSTEMD": "true",
            # Few threads, which do not spin while they wait: many tests share few cores. Figures come soon.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +SDio 1 +sbwt none -rabbit quorum_tick_interval 500",
        }

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        return run_as(self._user, command, self._folder, self._folder / "output.log", self._environment())


_CONFIGURATION = """\
listeners.tcp.local = 127.0.0.1:{port}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
default_user = {user}
default_pass = {password}
loopback_users = none
log.console = false
log.file.level = warning
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 2GB
collect_statistics_interval = 500
"""


def _family(started: subprocess.Popen[bytes] | None) -> list[psutil.Process]:
    if started is None or started.poll() is not None:
        return []
    process = psutil.Process(started.pid)
    return [process, *process.children(recursive=True)]


def _sbin(name: str) -> Path:
    # Not Debian's wrapper on PATH, which changes to its own user and folder.
    for root in parts.roots():
        found = sorted(root.glob(f"usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/{name}"))
        if found:
            return found[-1]
    return parts.program(name)


def _erlang(name: str) -> Path:
    for root in parts.roots():
        found = sorted(root.glob(f"usr/lib/erlang/erts-*/bin/{name}"))
        if found:
            return found[-1]
    return parts.program(name)


def _unpacked_erlang() -> dict[str, str]:
    """Debian's `erl` looks for itself under /usr/lib/erlang; one that was unpacked elsewhere is started past it."""
    emulator = _erlang("erlexec")
    root = emulator.parents[2]
    if root == Path("/usr/lib/erlang"):
        return {}
    folder = root / "toska-bin"
    folder.mkdir(exist_ok=True)
    script = folder / "erl"
    if not script.exists():
        draft = script.with_suffix(f".{os.getpid()}")
        draft.write_text(f'#!/bin/sh\nexec "{emulator}" "$@"\n')
        draft.chmod(0o755)
        draft.replace(script)
    variables = {"ROOTDIR": str(root), "BINDIR": str(emulator.parent), "EMU": "beam", "PROGNAME": "erl"}
    return {**variables, "PATH": f"{folder}:{os.environ.get('PATH', '/usr/bin:/bin')}"}


@contextlib.contextmanager
def rabbit_server(*, first: RabbitServer | None = None) -> Generator[RabbitServer]:
    """A server of the block's own, not started yet, in a folder that another user can get to."""
    folder = Path(tempfile.mkdtemp(prefix="toska-rabbit-"))
    folder.chmod(0o711)
    server = RabbitServer(folder, first=first)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
