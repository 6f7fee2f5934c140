"""The edge of a mesh: the HTTP data plane and its admin API."""

from typing import Final

from toska_gateway.compiled import prefer_compiled

COMPILED: Final = prefer_compiled()
"""Whether the data plane's hot modules run as machine code."""
