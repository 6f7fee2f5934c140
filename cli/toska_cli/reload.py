"""`toska reload`: new gateway workers in place of the old, without losing a request."""

import http.client
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from toska_common.errors import ConfigurationError, MeshError

from toska_cli.running import get_home, get_running_mesh

_PATIENCE_S = 120.0
"""Workers are replaced one after the other, and a start may take its time on a busy machine."""


def reload(admin: str | None, home: Path | None) -> None:
    """Ask a gateway for new workers, and print them.

    Args:
        admin: URL of its admin API; default: that of the mesh that runs here.
        home: The state folder that holds its admin token.

    Raises:
        ConfigurationError: There is no such gateway, or no token for it.
        MeshError: It refused, or failed.
    """
    if admin is None:
        mesh = get_running_mesh(home)
        admin, home = mesh.urls["gateway_admin"], mesh.home
    workers = _post(admin, "/api/v1/gateway/workers/reload", _token(get_home(home)))
    for worker in workers:
        sys.stdout.write(f"worker {worker['pid']} {worker['state']}\n")


def _token(home: Path) -> str:
    try:
        return (home / "admin.token").read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigurationError(f"cannot read the admin token in {home}: {error.strerror}") from error


def _post(url: str, path: str, token: str) -> list[dict[str, Any]]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigurationError(f"--admin {url}: write the URL of the admin API, such as http://127.0.0.1:8100")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_PATIENCE_S)
    try:
        connection.request("POST", path, headers={"authorization": f"Bearer {token}"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise MeshError(f"the gateway's admin API on {url} does not answer: {error}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise MeshError(f"the gateway refused: {answer.get('detail', response.status)}")
    return answer
