"""The histogram that the mesh counts latencies in: one grid for all, so that what several count can be added up."""

from typing import Final

_STEPS: Final = (10, 12, 14, 17, 20, 25, 30, 35, 40, 50, 60, 70, 85)

BOUNDS_US: Final = (
    *(step * scale // 10 for scale in (100, 1000, 10_000, 100_000, 1_000_000) for step in _STEPS),
    10_000_000,
    20_000_000,
    40_000_000,
    80_000_000,
)
"""Upper bounds of the buckets in microseconds, so close that percentiles are right to a tenth; one more takes the
rest."""
BOUNDS: Final = tuple(bound / 1e6 for bound in BOUNDS_US)
"""The same in seconds."""
