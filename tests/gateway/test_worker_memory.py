"""What a worker holds: no more for large bodies than for small ones, and little for each idle connection.

`TOSKA_MEMORY_GB` sends more than the suite's single gigabyte each way.
"""

import os
import resource
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from anyio import to_thread
from toska_tests.gateways import running_gateway, single
from toska_tests.raw_http import upstream

MIB = 1 << 20
SIZE = int(os.environ.get("TOSKA_MEMORY_GB", "1")) << 30
IDLE = 10_000
PIECE = memoryview(bytes(range(256)) * 4096)  # 1 MiB
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc")


def memory(pid: int, what: str) -> int:
    """Bytes of a process's memory: `VmRSS` now, `VmHWM` at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) << 10
    raise LookupError(what)


def send_much(end: socket.socket, head: bytes, coding: str) -> None:
    """Send a message of `SIZE` bytes."""
    end.sendall(head)
    chunk = b"%x\r\n" % len(PIECE)
    for _ in range(SIZE // len(PIECE)):
        if coding == "chunked":
            end.sendall(chunk)
        end.sendall(PIECE)
        if coding == "chunked":
            end.sendall(b"\r\n")
    if coding == "chunked":
        end.sendall(b"0\r\n\r\n")


def take_much(end: socket.socket, coding: str) -> int:
    """Read a message of about `SIZE` bytes; how many came after its head."""
    start, view = b"", memoryview(bytearray(MIB))
    while b"\r\n\r\n" not in start:
        data = end.recv(1 << 16)
        if not data:
            return -1
        start += data
    taken, tail = len(start.partition(b"\r\n\r\n")[2]), start[-8:]
    while taken < SIZE or (coding == "chunked" and not tail.endswith(b"\r\n0\r\n\r\n")):
        size = end.recv_into(view)
        if not size:
            break
        taken += size
        tail = (tail + bytes(view[max(0, size - 8) : size]))[-8:]
    return taken


@contextmanager
def exchanging(coding: str, taken: list[int]) -> Generator[int]:
    """An upstream in a thread, which takes one large body and answers with another; gives its port."""
    framing = b"transfer-encoding: chunked" if coding == "chunked" else b"content-length: %d" % SIZE

    def serve() -> None:
        end, _ = listener.accept()
        with end:
            end.settimeout(PATIENCE_S)
            taken.append(take_much(end, coding))
            send_much(end, b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n", coding)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_bodies_of_any_size_pass_through_flat_memory(coding: str) -> None:
    taken: list[int] = []
    framing = b"transfer-encoding: chunked" if coding == "chunked" else b"content-length: %d" % SIZE

    def exchange(address: tuple[str, int]) -> int:
        with socket.create_connection(address, timeout=PATIENCE_S) as client:
            send_much(client, b"POST / HTTP/1.1\r\nhost: test\r\n" + framing + b"\r\n\r\n", coding)
            return take_much(client, coding)

    with exchanging(coding, taken) as port:
        async with running_gateway(single(port)) as gateway:
            (pid,) = gateway.pids()
            before = memory(pid, "VmRSS")
            came_back = await to_thread.run_sync(exchange, gateway.address)
            grown = memory(pid, "VmHWM") - before
    print(f"{SIZE >> 30} GiB each way, {coding}: {before / MIB:.1f} MiB idle, at most {grown / MIB:.1f} MiB more")
    for size in (*taken, came_back):
        assert SIZE <= size < SIZE * 1.01
    assert grown < 64 * MIB


@pytest.fixture
def many_files() -> Generator[None]:
    """As many descriptors as the system allows, for this process and the workers it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 500
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"raise the limit of open files (ulimit -Hn) to {wanted}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask_each(clients: list[socket.socket]) -> None:
    """One request on each connection, answered."""
    for start in range(0, len(clients), 200):
        batch = clients[start : start + 200]
        for client in batch:
            client.sendall(b"GET / HTTP/1.1\r\nhost: test\r\nuser-agent: test\r\n\r\n")
        for client in batch:
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.usefixtures("many_files")
@pytest.mark.alone
async def test_ten_thousand_idle_connections_take_less_than_100_mib() -> None:
    limits = {"connections": 2 * IDLE, "connections_per_client": 2 * IDLE, "idle_timeout": "300s"}
    async with upstream() as app, running_gateway(single(app.port, limits=limits)) as gateway:
        (pid,) = gateway.pids()
        before = memory(pid, "VmRSS")
        with ExitStack() as stack:

            def connect() -> list[socket.socket]:
                made = [stack.enter_context(socket.create_connection(gateway.address, 30)) for _ in range(IDLE)]
                ask_each(made)
                return made

            clients = await to_thread.run_sync(connect)
            assert await gateway.metric("connections") == IDLE
            idle = memory(pid, "VmRSS")
            print(f"{IDLE:,} idle connections: {before / MIB:.1f} MiB without them, {idle / MIB:.1f} MiB with them")
            assert idle < 100 * MIB
            await to_thread.run_sync(ask_each, clients[::10])  # each of them is served again
        await gateway.until_quiet()
