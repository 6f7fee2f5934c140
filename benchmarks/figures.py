"""Medians over rounds, and what is kept of a run: as JSON, so that figures of two runs can be compared."""

import statistics
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, computed_field


class Record(BaseModel):
    """Part of a report; frozen like everything that was measured."""

    model_config = ConfigDict(frozen=True)


class Spread(Record):
    """A figure of several rounds: their median, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median=statistics.median(values), low=min(values), high=max(values))

    @computed_field
    @property
    def noise(self) -> float:
        """Half the range, as a share of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round, so that what slowed a whole round cancels out."""
    return Spread.of([mine / other for mine, other in zip(ours, theirs, strict=True)])
