"""TLS as a mesh has it: the routing comes from the router and names files, and the files are the gateway's."""

import ssl
from pathlib import Path

import pytest
from toska_common.errors import ConfigurationError
from toska_gateway.app import create_service
from toska_gateway.settings import Settings
from toska_tests.certificates import Authority
from toska_tests.control import ControlMesh, control_mesh
from toska_tests.raw_http import Message, ask, get, upstream
from toska_tests.waiting import wait_until


async def over_tls(mesh: ControlMesh, context: ssl.SSLContext) -> Message | None:
    """An answer from the data listener, if it speaks TLS."""
    try:
        return await ask(("127.0.0.1", mesh.first), get("/legacy/"), tls=context)
    except (OSError, EOFError):
        return None


async def test_a_gateway_takes_paths_from_the_router_and_files_from_its_own_folder(home: Path, tmp_path: Path) -> None:
    (certificates := tmp_path / "certificates").mkdir()
    authority = Authority(certificates)
    authority.issue("edge", "127.0.0.1")
    server = authority.server_context(authority.issue("legacy", "legacy.example"))
    context = authority.client_context()
    async with upstream(tls=server) as app, control_mesh(home, "discovery") as mesh:
        (file := tmp_path / "mesh.yaml").write_text(
            f"""
            server: {{tls: {{certificate: edge.pem, key: edge.key}}}}
            clusters:
              legacy:
                endpoints: [{{address: 127.0.0.1, port: {app.port}}}]
                tls: {{ca: test-authority.pem, server_name: legacy.example}}
            routes: [{{name: legacy, match: {{path_prefix: /legacy}}, to: legacy}}]
            """
        )
        await mesh.start_router(routes=file)
        await mesh.start_gateway(tls_folder=certificates)

        async def served() -> bool:
            answer = await over_tls(mesh, context)
            return answer is not None and answer.status == 200

        await wait_until(served, what="an answer over TLS on both sides")
        assert app.requests[-1].value("x-forwarded-proto") == b"https"
        overview = (await mesh.get(f"{mesh.admin}/api/v1/gateway", headers=mesh.bearer())).json()
        assert overview["listens_on"] == f"https://127.0.0.1:{mesh.first}"
        # From its last good snapshot it speaks TLS also without a router.
        await mesh.stop("gateway")
        await mesh.stop("router")
        kept = (home / "gateway" / "snapshot.json").read_text()
        assert "edge.pem" in kept
        assert "PRIVATE" not in kept
        await mesh.start_gateway(tls_folder=certificates)
        await wait_until(served, what="an answer from the stored snapshot")


async def test_a_gateway_that_lacks_the_files_says_so_to_the_router_and_serves_on(home: Path, tmp_path: Path) -> None:
    async with control_mesh(home, "discovery") as mesh:
        (file := tmp_path / "mesh.yaml").write_text(
            """
            server: {tls: {certificate: nowhere.pem, key: nowhere.key}}
            routes: [{name: one, match: {path: /one}, respond: {body: one}}]
            """
        )
        await mesh.start_router(routes=file)
        await mesh.start_gateway(tls_folder=tmp_path)

        async def refused() -> bool:
            link = (await mesh.get(f"{mesh.admin}/api/v1/gateway", headers=mesh.bearer())).json()["router"]
            return "server.tls.certificate: nowhere.pem: cannot be read: No such file" in link["rejected"]

        await wait_until(refused, what="the refusal in the overview")
        assert (await mesh.until_answered(f"{mesh.data}/api/v1/gateway")).status_code == 200


def test_a_routing_file_with_files_that_cannot_be_used_is_refused_with_their_lines(home: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("edge", "a.example"), authority.issue("other", "a.example")
    (file := tmp_path / "mesh.yaml").write_text(
        f"""server:
  tls:
    certificate: edge.pem
    key: {other.key.name}
clusters:
  legacy:
    endpoints: [{{address: 127.0.0.1, port: 1}}]
    tls:
      ca: nowhere.pem
routes: []
"""
    )
    with pytest.raises(ConfigurationError) as caught:
        create_service(Settings(home=home, routes=file))
    text = str(caught.value)
    assert f"line 2: server.tls: {pair.certificate.name}, other.key: the key does not belong to the certificate" in text
    assert "line 9: clusters.legacy.tls.ca: nowhere.pem: cannot be read: No such file" in text
