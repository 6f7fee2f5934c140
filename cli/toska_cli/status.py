"""`toska status`: every part of a running mesh, and the services that have joined it."""

import http.client
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from toska_common.meshfile import MeshFile

from toska_cli.reporting import print_parts
from toska_cli.running import get_running_mesh
from toska_cli.view import PartView

_TIMEOUT_S = 2.0
_PROBES = {
    "gateway_admin": "/health/ready",
    "discovery": "/health/ready",
    "registry": "/v1/status/leader",
    "router": "/health/ready",
    "events": "/health/ready",
}


def show_status(home: Path | None, *, as_json: bool) -> bool:
    """Print the state of every part; whether all are ready.

    Raises:
        ConfigurationError: No mesh runs there.
    """
    mesh = get_running_mesh(home)
    parts = [_probe(name, url) for name, url in mesh.urls.items()]
    services = _services(mesh)
    ready = all(part.state == "ready" for part in parts)
    if as_json:
        document: dict[str, Any] = {
            "home": str(mesh.home),
            "pid": mesh.pid,
            "ready": ready,
            "parts": {part.name: {"state": part.state, "url": part.url} for part in parts},
            "services": services,
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        shown = [replace(part, name=part.name.replace("_", " ")) for part in parts]
        print_parts(shown, title=f"Toska Mesh on {mesh.home} (pid {mesh.pid})")
        for service in services:
            sys.stdout.write(
                f"  {service['name']:<20} {service['passing']} passing"
                f"{_count(service, 'warning')}{_count(service, 'critical')}\n"
            )
    return ready


def _probe(name: str, url: str) -> PartView:
    parts = urlsplit(url)
    try:
        if name in _PROBES:
            status, _ = _get(url, _PROBES[name])
            return PartView(name, "ready" if status == http.client.OK else f"answers {status}", url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_TIMEOUT_S)
        connection.connect()  # the data listener has no health of its own: every path there is a route
        connection.close()
    except OSError as error:
        return PartView(name, "away", url, error.strerror or str(error))
    return PartView(name, "ready", url)


def _services(mesh: MeshFile) -> list[dict[str, Any]]:
    try:
        status, body = _get(mesh.urls["discovery"], "/api/v1/services")
        return json.loads(body) if status == http.client.OK else []
    except (OSError, ValueError):
        return []


def _get(url: str, path: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"does not speak HTTP: {error}") from error
    finally:
        connection.close()


def _count(service: dict[str, Any], state: str) -> str:
    return f", {service[state]} {state}" if service.get(state) else ""
