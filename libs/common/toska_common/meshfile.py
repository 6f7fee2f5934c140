"""`mesh.json`: how the `toska` command and apps on this machine find a running mesh.

`toska up` writes it (0600) into its home and into the user's state folder. Whoever looks takes the `TOSKA_*`
variables first, then `.toska/` here and upwards, then the state folder.
"""

import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from toska_common.contracts import Contract

FILE_NAME = "mesh.json"
DEFAULT_REGISTRY_URL = "http://127.0.0.1:8500"


class MeshFile(Contract):
    """A running mesh: where its parts answer and where its state lives."""

    home: Path
    pid: int
    started_at: datetime
    urls: Mapping[str, str]
    """By part: `gateway`, `gateway_admin`, `registry`, and every service's name such as `discovery`."""
    expose_by_default: bool = False
    """Whether an app that joins gets an automatic route unless it says otherwise; only on a loopback mesh."""


def user_state_folder() -> Path:
    """`$XDG_STATE_HOME/toska` (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "toska"


def find_mesh(start: Path | None = None) -> MeshFile | None:
    """The mesh that an app started in `start` (default: the working directory) belongs to, if one was written down."""
    for folder in _candidates(start or Path.cwd()):
        found = read_mesh_file(folder / FILE_NAME)
        if found is not None:
            return found
    return None


def read_mesh_file(path: Path) -> MeshFile | None:
    """Read one file; `None` if it is absent, unreadable or not a mesh file."""
    try:
        return MeshFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_mesh_file(mesh: MeshFile) -> list[Path]:
    """Write `mesh` where others look; the user's state folder is a courtesy and may be read-only."""
    written = [_replace(mesh.home / FILE_NAME, mesh)]
    folder = user_state_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        written.append(_replace(folder / FILE_NAME, mesh))
    except OSError:
        pass
    return written


def remove_mesh_file(mesh: MeshFile) -> None:
    """Take back what `write_mesh_file` wrote, unless another mesh has written there since."""
    for path in (mesh.home / FILE_NAME, user_state_folder() / FILE_NAME):
        found = read_mesh_file(path)
        if found is not None and (found.pid, found.home) == (mesh.pid, mesh.home):
            path.unlink(missing_ok=True)


def _candidates(start: Path) -> Iterator[Path]:
    home = os.environ.get("TOSKA_HOME")
    if home:
        yield Path(home)
        return
    for folder in (start, *start.parents):
        yield folder / ".toska"
    yield user_state_folder()


def _replace(path: Path, mesh: MeshFile) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(mesh.model_dump(mode="json"), file, indent=2)
    draft.replace(path)
    return path
