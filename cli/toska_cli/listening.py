"""Claiming ports, with an answer that helps when one is taken."""

import re
import socket

from toska_common.errors import ConfigurationError
from toska_common.meshfile import FILE_NAME, MeshFile, find_mesh, read_mesh_file, user_state_folder
from toska_common.server import bind

from toska_cli.home import find_holder


def claim(host: str, port: int) -> socket.socket:
    """Bind a listening socket.

    Raises:
        ConfigurationError: The port is taken; names the mesh that has it, if it is one of ours.
    """
    try:
        return bind(host, port)
    except ConfigurationError as error:
        raise ConfigurationError(_explain(host, port, str(error))) from error


def check_free(host: str, port: int) -> None:
    """Make sure that a later bind, maybe by another process, will find the port free.

    `bind` sets no SO_REUSEPORT, which would silently share the port with a stranger that also does.

    Raises:
        ConfigurationError: It is taken.
    """
    claim(host, port).close()


def _explain(host: str, port: int, reason: str) -> str:
    mesh = _mesh_at(port)
    if mesh is not None:
        return (
            f"port {port} belongs to the mesh on {mesh.home} (pid {mesh.pid}); "
            "stop it with `toska down`, or start this one with --ports-from 9000 and another --home"
        )
    if "in use" in reason:
        return f"port {port} on {host} is in use by another program; stop it, or move the mesh with --ports-from 9000"
    return reason


def _mesh_at(port: int) -> MeshFile | None:
    for mesh in (read_mesh_file(user_state_folder() / FILE_NAME), find_mesh()):
        if mesh is None or not any(re.search(rf":{port}$", url) for url in mesh.urls.values()):
            continue
        holder = find_holder(mesh.home)
        if holder is not None:
            return mesh.model_copy(update={"pid": holder})
    return None
