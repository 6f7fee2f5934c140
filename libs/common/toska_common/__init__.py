"""What every service of the mesh stands on, and the SDK that joins a FastAPI app to it.

`from toska_common import Mesh` is the whole of the SDK's front door. Names are loaded when first used, so that a
gateway worker, which needs two pure modules of this library, does not pay for FastAPI.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toska_common.mesh import Mesh

__all__ = ["Mesh", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Mesh":
        from toska_common.mesh import Mesh

        return Mesh
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
