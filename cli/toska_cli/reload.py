"""`toska reload`: new gateway workers in place of the old, without losing a request."""

import sys

from toska_cli.admin_api import AdminApi

_PATIENCE_S = 120.0
"""Workers are replaced one after the other, and a start may take its time on a busy machine."""


def reload(gateway: AdminApi) -> None:
    """Ask a gateway for new workers, and print them.

    Raises:
        MeshError: It refused, or failed.
    """
    for worker in gateway.post("/api/v1/gateway/workers/reload", patience_s=_PATIENCE_S):
        sys.stdout.write(f"worker {worker['pid']} {worker['state']}\n")
