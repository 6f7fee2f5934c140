"""Finding the mesh that runs on this machine, and making sure that it is one."""

import os
from pathlib import Path

from toska_common.errors import ConfigurationError
from toska_common.meshfile import FILE_NAME, MeshFile, find_mesh, read_mesh_file

from toska_cli.home import find_holder


def get_running_mesh(home: Path | None = None) -> MeshFile:
    """The mesh of `home`, or the one that an app started in the working directory would join.

    Raises:
        ConfigurationError: None runs there.
    """
    mesh = read_mesh_file(home / FILE_NAME) if home is not None else find_mesh()
    if mesh is None:
        where = f"on {home}" if home is not None else "here"
        raise ConfigurationError(f"no mesh runs {where}; start one with `toska up`")
    holder = find_holder(mesh.home)
    if holder is None:
        raise ConfigurationError(f"the mesh on {mesh.home} has ended; start it again with `toska up`")
    return mesh.model_copy(update={"pid": holder})


def get_home(home: Path | None) -> Path:
    """The home that was named, or that of the mesh found from here, which may have ended.

    Raises:
        ConfigurationError: There is no such folder.
    """
    mesh = None if home is not None else find_mesh()
    folder = mesh.home if mesh is not None else (home or Path(os.environ.get("TOSKA_HOME") or ".toska"))
    if not folder.is_dir():
        raise ConfigurationError(f"there is no state folder {folder}; name one with --home")
    return folder
