"""Where a gateway listens, as operators write it: on the command line, in the environment, beside a routing file."""

import subprocess
from pathlib import Path

import pytest
from toska_common.errors import ConfigurationError
from toska_gateway.app import create_service
from toska_gateway.listeners import ListenerAddress, parse_listener
from toska_gateway.settings import Settings
from toska_tests.certificates import Authority
from toska_tests.meshes import TOSKA
from toska_tests.ports import free_ports
from toska_tests.programs import running
from toska_tests.raw_http import ask, get, upstream
from toska_tests.waiting import wait_until


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ListenerAddress("127.0.0.1", 8080)),
        ("[::1]:0", ListenerAddress("::1", 0)),
        ("http://localhost:80", ListenerAddress("localhost", 80, tls=False)),
        ("https://[::]:8443", ListenerAddress("::", 8443, tls=True)),
        ("http://0.0.0.0:80?redirect=8443", ListenerAddress("0.0.0.0", 80, tls=False, redirect=8443)),
        ("0.0.0.0:80?proxy_protocol=off", ListenerAddress("0.0.0.0", 80, proxy_protocol=False)),
        ("unix:/run/a.sock", ListenerAddress(path="/run/a.sock", mode=0o600)),
        ("unix:/a?mode=660&proxy_protocol=on", ListenerAddress(path="/a", mode=0o660, proxy_protocol=True)),
    ],
)
def test_a_listener_is_read_as_it_is_written(text: str, expected: ListenerAddress) -> None:
    assert parse_listener(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8080", "write host:port"),
        ("127.0.0.1:65536", "write host:port"),
        ("ftp://127.0.0.1:80", "write host:port"),
        ("https://user@host:80", "write host:port"),
        ("https://host:80/path", "write host:port"),
        ("unix:run/a.sock", "absolute path"),
        ("unix:/" + "a" * 103, "at most 103 bytes"),
        ("unix:/a?mode=99", "in octal"),
        ("unix:/a?redirect=443", "http://"),
        ("127.0.0.1:80?mode=0600", "for Unix sockets"),
        ("127.0.0.1:80?redirect=443", "http://"),
        ("https://127.0.0.1:80?redirect=443", "http://"),
        ("http://127.0.0.1:80?redirect=0", "port of HTTPS"),
        ("http://127.0.0.1:80?redirect", "port of HTTPS"),
        ("127.0.0.1:80?proxy_protocol=yes", "on or off"),
        ("127.0.0.1:80?proxy_protocol=on&proxy_protocol=on", "stands twice"),
        ("127.0.0.1:80?reuse=1", "no option"),
    ],
)
def test_what_cannot_be_listened_on_is_said_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_listener(text)


def test_the_environment_lists_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSKA_GATEWAY_LISTEN", "http://0.0.0.0:80?redirect=443, https://0.0.0.0:443")
    settings = Settings.from_environment()
    assert [listener.port for listener in settings.listeners] == [80, 443]
    assert settings.data_address == ("0.0.0.0", 80)
    assert not settings.management_on_data_listener
    for wrong, reason in (("nowhere", "write host:port"), ("127.0.0.1:80,http://127.0.0.1:80", "stands twice")):
        monkeypatch.setenv("TOSKA_GATEWAY_LISTEN", wrong)
        with pytest.raises(ConfigurationError, match=f"TOSKA_GATEWAY_LISTEN: .*{reason}"):
            Settings.from_environment()


def test_without_them_there_is_one_on_the_host_and_port(home: Path) -> None:
    settings = Settings(home=home)
    assert settings.listeners == (ListenerAddress("127.0.0.1", 8080),)
    assert settings.management_on_data_listener
    local = Settings(home=home, listen=(parse_listener("unix:/run/a.sock"),))
    assert local.management_on_data_listener
    assert local.data_address == ("", 0)


def test_https_without_a_certificate_is_refused_at_the_start(home: Path, tmp_path: Path) -> None:
    (file := tmp_path / "routes.yaml").write_text("routes: []\n")
    with pytest.raises(ConfigurationError, match=r"needs server\.tls"):
        create_service(Settings(home=home, routes=file, listen=(parse_listener("https://127.0.0.1:8443"),)))


async def test_a_gateway_by_a_file_serves_every_kind_at_once_with_certificates_beside_the_file(
    home: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    authority.issue("edge", "localhost", "127.0.0.1")
    first = free_ports(3)
    plain, secure, admin = ("127.0.0.1", first), ("127.0.0.1", first + 1), first + 2
    async with upstream() as app:
        (tmp_path / "mesh.yaml").write_text(
            f"""
            server: {{tls: {{certificate: edge.pem, key: edge.key}}}}
            clusters: {{app: {{endpoints: [{{address: 127.0.0.1, port: {app.port}}}]}}}}
            routes: [{{name: all, match: {{path_prefix: /}}, to: app}}]
            """
        )
        command = [
            *(TOSKA, "gateway", "--routes", "mesh.yaml", "--workers", "1"),
            *("--listen", f"http://127.0.0.1:{plain[1]}?redirect={secure[1]}"),
            *("--listen", f"https://127.0.0.1:{secure[1]}", "--listen", f"unix:{tmp_path}/s"),
            *("--admin", f"127.0.0.1:{admin}", "--home", str(home)),
        ]
        with running(command, tmp_path) as program:

            async def answers() -> bool:
                try:
                    return (await ask(secure, get(), tls=authority.client_context())).status == 200
                except OSError:
                    return False

            await wait_until(answers)
            assert (await ask(plain, get("/x"))).value("location") == f"https://test:{secure[1]}/x".encode()
            assert (await ask((f"{tmp_path}/s", 0), get())).status == 200
            program.interrupt()
            assert await program.exit_code() == 0
        assert not (tmp_path / "s").exists()


def test_a_listener_that_cannot_be_read_ends_the_command_with_its_reason(home: Path, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("routes: []\n")
    command = [TOSKA, "gateway", "--routes", "mesh.yaml", "--listen", "unix:here"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--listen: unix:here: write the absolute path of the socket" in done.stderr
