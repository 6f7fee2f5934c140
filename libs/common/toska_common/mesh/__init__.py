"""The SDK: joins a FastAPI app to a mesh, and calls the other services in it.

app = FastAPI()
mesh = Mesh(app, name="orders")
payments = mesh.client("payments")
"""

from toska_common.mesh.client import MeshClient
from toska_common.mesh.errors import (
    AllCircuitsOpen,
    CallBroken,
    CallTimeout,
    ConnectFailed,
    DeadlineExceeded,
    NoEndpoints,
)
from toska_common.mesh.joining import Mesh

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
