"""Discovery on a real Consul that wants TLS, a client's certificate and a token."""

import contextlib
import json
import subprocess
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from toska_common.clients.consul import ConsulClient
from toska_common.clients.registry_tls import RegistryTls
from toska_common.errors import ConfigurationError, UpstreamUnavailable
from toska_common.settings import ServiceSettings
from toska_tests import parts
from toska_tests.clients import http_client
from toska_tests.discovery_rest import SERVICES, body, found, wait_for
from toska_tests.discovery_rig import discovery_in
from toska_tests.ports import free_ports
from toska_tests.programs import running
from toska_tests.waiting import wait_until

TOKEN = "5ff8ef42-0f3b-4d5c-9a3e-6d8ad1d0a9a1"


@dataclass(frozen=True, slots=True)
class SecureConsul:
    """Where it is, and the files to talk to it."""

    port: int
    ca: Path
    certificate: Path

    @property
    def tls(self) -> RegistryTls:
        """What its clients need."""
        return RegistryTls(self.ca, self.certificate)


@pytest.fixture(scope="module")
async def secure_consul(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[SecureConsul]:
    """A Consul that answers over TLS only, to certificates of its own authority, and denies without a token."""
    folder = tmp_path_factory.mktemp("secure")
    ca = _certificate_authority(folder)
    server, client = (_certificate(folder, name) for name in ("server.dc1.consul", "client"))
    first = free_ports(4)
    settings: dict[str, Any] = {
        "ports": {"http": -1, "https": first, "server": first + 1, "serf_lan": first + 2, "serf_wan": first + 3},
        "ca_file": str(ca),
        "cert_file": str(server),
        "key_file": str(server),
        "verify_incoming": True,
        "acl": {"enabled": True, "default_policy": "deny", "tokens": {"master": TOKEN, "agent": TOKEN}},
    }
    settings["ports"] |= {"dns": -1, "grpc": -1}
    (folder / "consul.json").write_text(json.dumps(settings))
    command = [parts.consul(), "agent", "-dev", "-bind=127.0.0.1", f"-config-file={folder / 'consul.json'}"]
    with running(command, folder) as program:
        made = SecureConsul(first, ca, client)
        context = made.tls.context()
        assert context is not None
        async with http_client(verify=context, headers={"x-consul-token": TOKEN}) as http:

            async def has_leader() -> bool:
                assert program.returncode is None, program.stdout[-2000:]
                with contextlib.suppress(httpx.TransportError, ValueError):
                    return bool((await http.get(f"https://127.0.0.1:{first}/v1/catalog/nodes")).json())
                return False

            await wait_until(has_leader, what="Consul has a leader")
        yield made


async def test_discovery_works_over_tls_with_a_token(secure_consul: SecureConsul, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "registry_url": f"consul+tls://127.0.0.1:{secure_consul.port}",
        "registry_ca": secure_consul.ca,
        "registry_certificate": secure_consul.certificate,
        "registry_token": TOKEN,
    }
    async with (
        discovery_in(tmp_path, **options) as discovery,
        http_client(base_url=discovery.rest, headers=discovery.bearer("join")) as http,
    ):
        answer = await http.post(SERVICES, json=body("secure", id="secure-1", zone="z"))
        assert answer.status_code == 201, answer.text
        await wait_for(http, "secure", "secure-1")
        changed = await http.patch(f"{SERVICES}/secure-1/metadata", json={"team": "a"})
        assert (changed.status_code, changed.json()["version"]) == (200, 2)
        await wait_until(lambda: _has_team(http))
        assert (await http.delete(f"{SERVICES}/secure-1")).status_code == 204


async def _has_team(http: httpx.AsyncClient) -> bool:
    return [item["metadata"].get("team") for item in await found(http, "secure")] == ["a"]


@pytest.mark.parametrize("missing", ["ca", "certificate"])
async def test_without_its_authority_or_our_certificate_nobody_is_believed(
    secure_consul: SecureConsul, missing: str
) -> None:
    tls = RegistryTls(
        None if missing == "ca" else secure_consul.ca, None if missing == "certificate" else secure_consul.certificate
    )
    async with ConsulClient.open(f"https://127.0.0.1:{secure_consul.port}", token=TOKEN, tls=tls) as consul:
        with pytest.raises(UpstreamUnavailable):
            await consul.catalog_services()


def test_a_file_that_is_none_is_said_with_its_variable(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("hello")
    for tls, variable in (
        (RegistryTls(ca=tmp_path / "missing.pem"), "TOSKA_REGISTRY_CA"),
        (RegistryTls(ca=nonsense), "TOSKA_REGISTRY_CA"),
        (RegistryTls(certificate=nonsense), "TOSKA_REGISTRY_CERTIFICATE"),
    ):
        with pytest.raises(ConfigurationError, match=variable):
            tls.context()


@pytest.mark.parametrize("url", ["consul+tls://c.example:8501", "consul://c.example:8500", "https://c.example"])
def test_urls_of_registries_are_taken(url: str) -> None:
    assert ServiceSettings(registry_url=url).registry_url == url


def _openssl(folder: Path, *arguments: str) -> None:
    command = [str(parts.program("openssl")), *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=20)


def _certificate_authority(folder: Path) -> Path:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    _openssl(folder, "req", "-x509", *key, "-subj", "/CN=test CA", *extensions, "-keyout", "ca.key", "-out", "ca.pem")
    return folder / "ca.pem"


def _certificate(folder: Path, name: str) -> Path:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(folder, "req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.pem", "-out", f"{name}.csr")
    (folder / f"{name}.ext").write_text(
        f"subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
    )
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt")
    joined = folder / f"{name}.pem"
    with joined.open("ab") as file:
        file.write((folder / f"{name}.crt").read_bytes())
    return joined
