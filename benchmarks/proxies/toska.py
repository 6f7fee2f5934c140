"""Our own gateway alone, on its default policies, with a rate limit and a circuit that nothing ever reaches.

Where it has one worker, that worker counts for the whole machine, and its rate limit says so (`scope: worker`); with
several, all of them count together (`scope: machine`).
"""

import json
from importlib.metadata import version
from pathlib import Path

from toska_gateway import COMPILED

from benchmarks.parts import Program, get_script
from benchmarks.processes import free_ports
from benchmarks.profiles import route_path
from benchmarks.proxies.setup import Proxy, Setup

_LIMIT = {"requests": 10_000_000, "per": "1s", "key": "client_ip"}


def _command(program: Program, setup: Setup) -> list[str | Path]:
    endpoints = [{"address": "127.0.0.1", "port": port} for port in setup.upstreams]
    policies: dict[str, object] = {}
    if setup.caching:
        policies["cache"] = {}
    elif setup.guard is not None:
        guard = setup.guard
        jwt = {"issuer": guard.issuer, "audience": guard.audience, "jwks_file": str(guard.keys)}
        policies["auth"] = {"jwt": {**jwt, "forward": {"x-user": "sub"}}}  # and nothing that the other does not do
    elif setup.limit != "none":
        policies["rate_limit"] = {**_LIMIT, "scope": setup.limit}
    routes = [
        {
            "name": route_path(route).lstrip("/"),
            "match": {"path_prefix": route_path(route)},
            "to": "everybody",
            "policies": policies,
        }
        for route in range(setup.routes)
    ]
    file = setup.folder / "routes.yaml"
    cluster = {
        "endpoints": endpoints,
        "limits": {"max_connections": setup.room},
        **({} if setup.guard else {"breaker": {}}),
    }
    server: dict[str, object] = {"limits": {"connections": setup.room, "connections_per_client": setup.room}}
    if setup.certificate is not None:
        server["tls"] = {"certificate": str(setup.certificate.certificate), "key": str(setup.certificate.key)}
    if setup.guard is not None:
        server["access_log"] = {"path": str(setup.log)}
    file.write_text(json.dumps({"server": server, "clusters": {"everybody": cluster}, "routes": routes}))
    (admin,) = free_ports(1)
    return [
        *(program.path, "gateway", "--routes", file, "--workers", str(setup.workers)),
        *("--listen", f"127.0.0.1:{setup.port}", "--admin", f"127.0.0.1:{admin}"),
    ]


def _version(_: Program) -> str:
    return version("toska-gateway") + (" compiled" if COMPILED else "")


TOSKA = Proxy("toska", lambda: get_script("toska"), _version, _command)
