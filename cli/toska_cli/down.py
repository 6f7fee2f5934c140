"""`toska down`: stop the mesh that runs on this machine, as its own Ctrl-C would."""

import os
import signal
import sys
import time
from pathlib import Path

from toska_common.errors import MeshError

from toska_cli.home import find_holder
from toska_cli.running import get_running_mesh

_PATIENCE_S = 10.0


def down(home: Path | None = None) -> None:
    """Signal the mesh, and return when it is gone.

    Raises:
        ConfigurationError: No mesh runs there.
        MeshError: It did not end in time.
    """
    mesh = get_running_mesh(home)
    try:
        os.kill(mesh.pid, signal.SIGTERM)
    except PermissionError as error:
        raise MeshError(f"the mesh on {mesh.home} (pid {mesh.pid}) belongs to another user") from error
    except ProcessLookupError:
        return
    deadline = time.monotonic() + _PATIENCE_S
    while find_holder(mesh.home) == mesh.pid:
        if time.monotonic() > deadline:
            raise MeshError(f"the mesh on {mesh.home} (pid {mesh.pid}) has not ended after {_PATIENCE_S:.0f} s")
        time.sleep(0.05)
    sys.stdout.write(f"stopped the mesh on {mesh.home}\n")
