"""The certificate of the xDS server is renewed while streams stay open, and a bad one is not taken over."""

import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from anyio.to_thread import run_sync
from toska_common.errors import ConfigurationError
from toska_router.programming import tls_files
from toska_router.programming.tls_files import TlsFiles
from toska_router.xds import types
from toska_tests.certificates import Authority, Pair, with_passphrase
from toska_tests.routers import StartRouter
from toska_tests.waiting import wait_until
from toska_tests.xds_clients import xds_client

WITHIN_S = 30.0
LEGACY = {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}
_grpc: Any = grpc


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def shown(port: int) -> str:
    """The certificate that the server shows to who connects now."""
    return await run_sync(ssl.get_server_certificate, ("127.0.0.1", port))


def pem(pair: Pair) -> str:
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()))


async def test_a_renewed_certificate_is_shown_to_who_connects_while_streams_stay_open(
    start_router: StartRouter, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_files, "LOOK_EVERY_S", 0.05)
    used, first, second = (authority.issue(name, "localhost", "127.0.0.1") for name in ("used", "first", "second"))
    for source, target in ((first.certificate, used.certificate), (first.key, used.key)):
        shutil.copy(source, target)
    options = {"xds": True, "xds_port": 0, "xds_certificate": used.certificate, "xds_key": used.key}
    async with start_router(**options) as router:

        async def status() -> dict[str, Any]:
            return await router.read("xds")

        async def listens() -> bool:
            return (await status())["version"] != ""

        await wait_until(listens, within=WITHIN_S)
        port = (await status())["port"]
        assert await shown(port) == pem(first)
        credentials = _grpc.ssl_channel_credentials(authority.file.read_bytes())
        async with xds_client(port, credentials=credentials) as client:
            await client.say(type_url=types.LISTENER)
            await client.accept(await client.hear())

            shutil.copy(second.certificate, used.certificate)  # and not the key yet
            await wait_until(lambda: refused(status), within=WITHIN_S)
            assert "for xDS" in (await status())["tls_problem"]
            assert await shown(port) == pem(first)

            shutil.copy(second.key, used.key)

            async def is_renewed() -> bool:
                return await shown(port) == pem(second)

            await wait_until(is_renewed, within=WITHIN_S)
            assert (await status())["tls_problem"] == ""
            await router.put("clusters/legacy", LEGACY)
            await client.say(type_url=types.CLUSTER)
            assert (await client.hear()).type_url == types.CLUSTER
            assert len((await status())["clients"]) == 1


async def refused(status: Callable[[], Any]) -> bool:
    return (await status())["tls_problem"] != ""


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    one, two = authority.issue("one"), authority.issue("two")
    text = tmp_path / "text.pem"
    text.write_text("hello")
    for certificate, key, client_ca, reason in (
        (one.certificate, two.key, None, "KEY_VALUES_MISMATCH"),
        (tmp_path / "none.pem", one.key, None, r"cannot read .*none\.pem for xDS: No such file"),
        (text, one.key, None, r"cannot use .*text\.pem"),
        (one.certificate, with_passphrase(one), None, "cannot use"),
        (one.certificate, one.key, text, r"cannot use .*text\.pem|text\.pem holds no certificate"),
    ):
        with pytest.raises(ConfigurationError, match=reason) as problem:
            TlsFiles(certificate, key, client_ca).open()
        assert "PRIVATE" not in problem.value.detail
    assert TlsFiles(one.certificate, one.key, authority.file).open()().client_ca == authority.file.read_bytes()
