"""What active checks say about an endpoint: pure, one check's outcome after the other.

    unknown ──first check──▶ healthy ──`fall` failures in a row──▶ unhealthy
                 └─────────▶ unhealthy ──`rise` successes in a row──▶ healthy

The first check decides alone: whoever has just come is either there or not, and nobody should have to wait for three
intervals to hear of it. Until then an endpoint takes part; requests find out about it as they do without checks.
"""

from typing import Final

UNKNOWN: Final = None


class Verdict:
    """How one endpoint is. `healthy` is `None` until its first check."""

    __slots__ = ("_against", "healthy")

    def __init__(self) -> None:
        self.healthy: bool | None = UNKNOWN
        self._against = 0  # checks in a row that speak against the verdict

    def record(self, *, passed: bool, rise: int, fall: int) -> bool:
        """Take a check's outcome in; tells whether the verdict is another now."""
        if self.healthy is UNKNOWN:
            self.healthy = passed
            return True
        if passed is self.healthy:
            self._against = 0
            return False
        self._against += 1
        if self._against < (rise if passed else fall):
            return False
        self.healthy, self._against = passed, 0
        return True
