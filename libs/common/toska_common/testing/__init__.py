"""What tests of apps in a mesh need: a clock of their own, and a whole mesh for those that want the real thing."""

from toska_common.testing.clock import FakeClock
from toska_common.testing.live_mesh import LiveMesh, MeshNotStarted, live_mesh

__all__ = ["FakeClock", "LiveMesh", "MeshNotStarted", "live_mesh"]
