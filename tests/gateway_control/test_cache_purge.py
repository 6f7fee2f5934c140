"""Purging stored responses through the admin API, in every worker."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from toska_tests.clients import http_client
from toska_tests.control import ControlMesh, control_mesh
from toska_tests.gateways import cluster, route
from toska_tests.raw_http import Upstream, response, upstream
from toska_tests.waiting import wait_until


@pytest.fixture
async def app() -> AsyncGenerator[Upstream]:
    async with upstream(response(200, "cache-control: max-age=60", body=b"kept")) as app:
        yield app


@pytest.fixture
async def gateway(home: Path, app: Upstream) -> AsyncGenerator[ControlMesh]:
    routes = [route(name, f"/{name}", policies={"cache": {}}) for name in ("one", "two")]
    (home / "mesh.yaml").write_text(json.dumps({"clusters": {"app": cluster(app.port)}, "routes": routes}))
    async with control_mesh(home, "gateway", routes=home / "mesh.yaml", workers=2) as mesh:
        yield mesh


async def purge(gateway: ControlMesh, what: dict[str, Any], access: str = "admin") -> httpx.Response:
    url = f"{gateway.admin}/api/v1/gateway/cache/purge"
    return await gateway.http.post(url, json=what, headers=gateway.bearer(access))


async def entries(gateway: ControlMesh) -> int:
    text = (await gateway.get(f"{gateway.admin}/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("toska_gateway_cache_entries ")]
    return int(float(line.split()[1]))


async def fill(gateway: ControlMesh) -> None:
    """Ask on new connections until both workers have stored both routes' responses."""

    async def filled() -> bool:
        async with http_client() as client:
            for name in ("one", "two"):
                assert (await client.get(f"{gateway.data}/{name}")).text == "kept"
        return await entries(gateway) == 4

    await wait_until(filled, what="both workers have both responses", every=0)


async def test_urls_routes_and_everything_are_purged_in_all_workers(gateway: ControlMesh) -> None:
    await fill(gateway)
    found = await purge(gateway, {"url": f"{gateway.data}/one"})
    assert (found.status_code, found.json()) == (200, {"entries": 2})
    assert await entries(gateway) == 2
    assert (await purge(gateway, {"route": "one"})).json() == {"entries": 0}
    assert (await purge(gateway, {"route": "two"})).json() == {"entries": 2}
    await fill(gateway)
    assert (await purge(gateway, {"everything": True})).json() == {"entries": 4}
    assert await entries(gateway) == 0


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ({}, "everything"),
        ({"url": "http://a/", "route": "one"}, "everything"),
        ({"url": "/one"}, "the whole URL"),
        ({"url": "http://a b/"}, "host"),
        ({"url": "ftp://a/"}, "http://"),
        ({"url": "http://a/%zz"}, "hexadecimal"),
        ({"route": "three"}, "no route of this name"),
        ({"rout": "one"}, "rout"),
    ],
)
async def test_a_purge_of_what_is_not_there_is_refused(gateway: ControlMesh, what: dict[str, Any], named: str) -> None:
    refused = await purge(gateway, what)
    assert refused.status_code == 422
    assert named in refused.text


async def test_only_administrators_purge(gateway: ControlMesh) -> None:
    assert (await purge(gateway, {"everything": True}, "join")).status_code == 403
    bare = await gateway.http.post(f"{gateway.admin}/api/v1/gateway/cache/purge", json={"everything": True})
    assert bare.status_code == 401
