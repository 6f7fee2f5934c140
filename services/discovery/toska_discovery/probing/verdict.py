"""What a probe finds, and when enough of the same has been found to say so."""

from dataclasses import dataclass
from typing import Protocol

from toska_common.contracts.discovery import Health

from toska_discovery.check import Probe

READ_MAX_BYTES = 2**20
"""Most that a probe reads of what it is sent; only the end of it is shown."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one probe, in the words that the catalog shows."""

    status: Health
    output: str


class Runner(Protocol):
    """Probes one kind of check."""

    async def run(self, probe: Probe, output_max_bytes: int, /) -> Verdict:
        """Ask once, within the probe's timeout; whatever goes wrong out there is a verdict and no exception.

        Of what the target has to say the last `output_max_bytes` are in the verdict.
        """
        ...


class Judge(Protocol):
    """Takes verdicts."""

    def judge(self, check_id: str, status: Health, output: str) -> None:
        """A check is so from now on.

        Raises:
            UnknownCheck: It has just gone.
        """
        ...


class Streak:
    """Verdicts in a row: passing and critical need as many as their check asks for.

    The first verdict of all counts at once, in either direction: nothing was known before it. A warning counts as a
    success. (Both as in Consul 1.8.)
    """

    def __init__(self, success_before_passing: int, failures_before_critical: int) -> None:
        self._successes = self._enough_successes = success_before_passing
        self._failures = self._enough_failures = failures_before_critical

    def take(self, status: Health) -> bool:
        """Whether a verdict counts, after those before it."""
        if status is Health.CRITICAL:
            self._failures += 1
            self._successes = 0
            return self._failures >= self._enough_failures
        self._successes += 1
        self._failures = 0
        return self._successes >= self._enough_successes


class Tail:
    """The end of a stream of bytes, with the number of those that came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.total = 0

    def add(self, chunk: bytes) -> None:
        """Take what came next."""
        self.total += len(chunk)
        self._kept += chunk[-self._limit :]
        if len(self._kept) > self._limit:
            del self._kept[: -self._limit]

    @property
    def text(self) -> str:
        """What is kept; bytes that are no text are replaced."""
        return self._kept.decode(errors="replace")
