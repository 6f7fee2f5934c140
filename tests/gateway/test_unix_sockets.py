"""Unix sockets on both sides: their files, who may use them, and what requests look like that come or go by them."""

import os
import signal
import socket
import stat
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from toska_common.contracts.routing import ClusterEndpoints, Endpoint
from toska_common.errors import ConfigurationError
from toska_gateway.listeners import parse_listener
from toska_gateway.supervisor import Supervisor
from toska_tests.certificates import Authority
from toska_tests.gateways import running_gateway, single, snapshot_of
from toska_tests.raw_http import ask, connected, get, upstream
from toska_tests.waiting import wait_until


@pytest.fixture
def folder() -> Generator[Path]:
    """A folder with a short name: a socket's path has 103 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="toska-") as name:
        yield Path(name)


def over(path: Path, **cluster: Any) -> dict[str, Any]:
    """Everything goes to one Unix socket."""
    endpoint = {"address": f"unix:{path}"}
    route = {"name": "all", "match": {"path_prefix": "/"}, "to": "app"}
    return {"clusters": {"app": {"endpoints": [endpoint], **cluster}}, "routes": [route]}


async def test_requests_come_by_a_socket_and_by_tcp_alike(folder: Path) -> None:
    path = folder / "edge.sock"
    listen = [f"unix:{path}?mode=0660", "127.0.0.1:0"]
    async with upstream() as app, running_gateway(single(app.port), listen=listen, workers=2) as gateway:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert gateway.supervisor.urls[0] == f"unix:{path}"
        assert gateway.address[1] == gateway.port(1)
        for _ in range(4):
            assert (await ask((str(path), 0), get())).status == 200
        assert (await ask(("127.0.0.1", gateway.port(1)), get())).status == 200
        assert app.requests[0].value("x-forwarded-for") != b"127.0.0.1"
    assert not path.exists()


async def test_whoever_comes_by_a_socket_can_be_a_trusted_proxy_and_has_no_limit_of_its_own(folder: Path) -> None:
    address = (str(folder / "edge.sock"), 0)
    async with upstream() as app, running_gateway(listen=[f"unix:{address[0]}"]) as gateway:
        document = single(app.port, limits={"connections_per_client": 1})
        document["server"]["trusted_proxies"] = ["unix:"]
        await gateway.serve(document)
        async with connected(address) as first, connected(address) as second:
            for client in (first, second):
                answer = await client.ask(get("/", "x-forwarded-proto: https"))
                assert answer.status == 200
        assert app.requests[1].value("x-forwarded-proto") == b"https"


async def test_a_worker_s_successor_listens_on_the_same_socket(folder: Path) -> None:
    path = folder / "edge.sock"
    async with upstream() as app, running_gateway(single(app.port), listen=[f"unix:{path}"]) as gateway:
        before = path.stat().st_ino
        (first,) = gateway.pids()
        os.kill(first, signal.SIGKILL)
        await wait_until(lambda: gateway.pids() != [first], what="a successor")
        assert (await ask((str(path), 0), get())).status == 200
        await gateway.supervisor.renew()
        assert (await ask((str(path), 0), get())).status == 200
        assert path.stat().st_ino == before


def test_a_socket_that_a_dead_process_left_is_replaced(folder: Path) -> None:
    path = folder / "edge.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    supervisor = Supervisor("", 0, 1, listeners=[parse_listener(f"unix:{path}")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    supervisor.close()
    assert not path.exists()


def test_what_is_not_ours_is_never_taken_away(folder: Path) -> None:
    path = folder / "edge.sock"
    address = parse_listener(f"unix:{path}")
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="something that is no socket"):
        Supervisor("", 0, 1, listeners=[address])
    assert path.read_text() == "precious"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ConfigurationError, match="another process listens there"):
            Supervisor("", 0, 1, listeners=[address])
        assert path.exists()
    path.unlink()
    first = Supervisor("", 0, 1, listeners=[address])
    path.unlink()
    second = Supervisor("", 0, 1, listeners=[address])
    first.close()
    assert path.exists(), "the second one's socket"
    second.close()
    first.close()
    assert not path.exists()


def test_a_folder_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on unix:.*/nowhere/edge.sock: No such file"):
        Supervisor("", 0, 1, listeners=[parse_listener(f"unix:{folder}/nowhere/edge.sock")])


async def test_an_endpoint_may_be_a_socket_whose_connections_are_kept(folder: Path) -> None:
    path = folder / "app.sock"
    async with upstream(path=str(path)) as app, running_gateway(over(path)) as gateway:
        for _ in range(3):
            assert (await ask(gateway.address, get("/", host="shop.example"))).status == 200
        assert len(app.conversations) == 1
        assert app.requests[0].value("host") == b"shop.example"
        path.unlink()
        await app.stop()
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.error) == (502, "upstream-connect-failed")
        assert f"unix:{path}" in answer.body.decode()


async def test_tls_goes_over_a_socket_too(folder: Path, tmp_path: Path) -> None:
    authority, path = Authority(tmp_path), folder / "app.sock"
    server = authority.server_context(authority.issue("a", "a.example"))
    tls = {"ca": str(authority.file), "server_name": "a.example"}
    async with upstream(path=str(path), tls=server), running_gateway(over(path, tls=tls)) as gateway:
        assert (await ask(gateway.address, get())).status == 200


async def test_the_registry_leads_to_no_socket(folder: Path) -> None:
    path = folder / "app.sock"
    document = {
        "clusters": {"app": {"service": "app"}},
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "to": "app"}],
    }
    snapshot = snapshot_of(document)
    pool = ClusterEndpoints(version="1", endpoints=(Endpoint(id="evil", address=f"unix:{path}"),))
    async with upstream(path=str(path)) as app, running_gateway() as gateway:
        await gateway.supervisor.apply(snapshot.model_copy(update={"endpoints": {"app": pool}}))
        answer = await ask(gateway.address, get())
        assert (answer.status, answer.error) == (502, "target-refused")
        assert app.conversations == []
