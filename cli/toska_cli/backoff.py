"""How long to wait before something that died is started again. Pure: the caller brings the time."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Waits that double with each death, and start over once something has lived long enough.

    Attributes:
        base_s: The first wait.
        max_s: The longest.
        healthy_after_s: A life of this length clears the record.
    """

    base_s: float = 0.1
    max_s: float = 10.0
    healthy_after_s: float = 10.0
    _deaths: int = field(default=0, init=False)

    def delay_after(self, lived_s: float) -> float:
        """Seconds to wait after a life of `lived_s` seconds."""
        if lived_s >= self.healthy_after_s:
            self._deaths = 0
        delay = min(self.max_s, self.base_s * 2 ** min(self._deaths, 16))
        self._deaths += 1
        return delay
