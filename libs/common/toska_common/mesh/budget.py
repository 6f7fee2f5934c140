"""A bound on retries: a share of the calls, so that a struggling service is not buried under second attempts."""


class RetryBudget:
    """Each call earns `ratio` of a retry, up to `reserve` saved; each retry spends one."""

    def __init__(self, ratio: float = 0.2, reserve: float = 10.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._saved = reserve

    def earn(self) -> None:
        """A first attempt is made."""
        self._saved = min(self._reserve, self._saved + self._ratio)

    def spend(self) -> bool:
        """Ask for a retry; `False` if there have been too many."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
