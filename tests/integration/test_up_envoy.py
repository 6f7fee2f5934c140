"""`toska up --engine envoy`: the same mesh, with Envoy in front of it."""

import os
import signal
from pathlib import Path
from typing import Any

import psutil
from toska_tests.clients import http_client
from toska_tests.meshes import answers, toska_up
from toska_tests.waiting import wait_until


async def test_a_mesh_is_served_by_envoy_which_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    async with toska_up(tmp_path, "--no-examples", "--engine", "envoy", "--workers", "1") as mesh:
        parent = psutil.Process(mesh.line["pid"])
        (envoy,) = [child for child in parent.children(recursive=True) if child.name() == "envoy"]
        route = {"match": {"path": "/hello"}, "respond": {"body": "from envoy"}}
        bad: dict[str, Any] = {"match": {"path": "/bad"}, "respond": {"body": ""}, "policies": {"cache": {}}}
        async with http_client(timeout=20, headers=mesh.authorization("admin")) as client:
            # Through the data listener: Envoy serves the mesh's own routes, too.
            assert (await client.put(f"{mesh.gateway}/api/v1/routes/hello", json=route)).status_code == 201
            await wait_until(lambda: answers(f"{mesh.gateway}/hello"), within=20, what="the new route is served")
            await client.put(f"{mesh.url('router')}/api/v1/routes/bad", json=bad)

            async def told() -> bool:
                (gateway,) = (await client.get(f"{mesh.url('router')}/api/v1/gateways")).json()
                return 'route "bad": Envoy keeps no responses here' in gateway["rejected"]

            await wait_until(told, within=20, what="the router knows why the gateway refuses")
            assert (await client.get(f"{mesh.gateway}/hello")).text == "from envoy"
        os.kill(parent.pid, signal.SIGKILL)
        await wait_until(lambda: not envoy.is_running() or envoy.status() == psutil.STATUS_ZOMBIE, within=20)
