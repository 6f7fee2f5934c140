"""The SDK: joins a FastAPI app to a mesh, and calls the other services in it.

    app = FastAPI()
    mesh = Mesh(app, name="orders")
    payments = mesh.client("payments")

What a call needs (httpx, tenacity) is loaded with the first client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from toska_common.mesh.joining import Mesh

if TYPE_CHECKING:
    from toska_common.mesh.client import MeshClient
    from toska_common.mesh.errors import (
        AllCircuitsOpen,
        CallBroken,
        CallTimeout,
        ConnectFailed,
        DeadlineExceeded,
        NoEndpoints,
    )

__all__ = [
    "AllCircuitsOpen",
    "CallBroken",
    "CallTimeout",
    "ConnectFailed",
    "DeadlineExceeded",
    "Mesh",
    "MeshClient",
    "NoEndpoints",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "client" if name == "MeshClient" else "errors"
    return getattr(import_module(f"toska_common.mesh.{home}"), name)
