"""How often keys have been asked for lately: a count-min sketch with ageing. Pure."""

from typing import Final

MOST: Final = 15
"""Counting ends here: whatever is asked for so often is popular enough."""
_ROWS: Final = 4
_HALVES: Final = bytes(number >> 1 for number in range(256))
_MIX: Final = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
_WORD: Final = (1 << 64) - 1


class FrequencySketch:
    """Counts for any number of keys in a fixed number of bytes; a count errs only upwards.

    Args:
        keys: About how many keys are told apart.

    Attributes:
        period: Additions after which all counts are halved, so that yesterday's news make room.
    """

    __slots__ = ("_additions", "_rows", "_shift", "ages", "period")

    def __init__(self, keys: int) -> None:
        bits = max(6, (max(1, keys) - 1).bit_length())
        self._shift = 64 - bits
        self._rows = [bytearray(1 << bits) for _ in range(_ROWS)]
        self._additions = 0
        self.ages = 0
        self.period = 10 << bits

    def add(self, fingerprint: int, times: int = 1) -> None:
        """Count a key, given a number of 64 bits that stands for it."""
        for row, mix in zip(self._rows, _MIX, strict=True):
            at = (fingerprint * mix & _WORD) >> self._shift
            row[at] = min(MOST, row[at] + times)
        self.count(times)

    def count(self, times: int = 1) -> None:
        """Let time go on for requests that are counted elsewhere."""
        self._additions += times
        if self._additions >= self.period:
            self._additions >>= 1
            self.ages += 1
            self._rows = [row.translate(_HALVES) for row in self._rows]

    def estimate(self, fingerprint: int) -> int:
        """How often a key has been counted, up to `MOST`."""
        shift = self._shift
        return min(row[(fingerprint * mix & _WORD) >> shift] for row, mix in zip(self._rows, _MIX, strict=True))
