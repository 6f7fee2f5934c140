"""Compressing responses: what a client takes, which responses may change, and bodies that shrink as they pass.

policy ──┬─ negotiation   Accept-Encoding against what the route offers
         └─ coders        br, zstd and gzip behind one shape, each loaded when a route first uses it
"""

from toska_gateway.worker.compression.policy import Compress

__all__ = ["Compress"]
