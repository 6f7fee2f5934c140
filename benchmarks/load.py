"""The load: wrk, a closed loop over a fixed number of connections, on cores of its own."""

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks import BenchError
from benchmarks.parts import Program

_SCRIPT = Path(__file__).with_name("load.lua")


class Answers(BaseModel):
    """What wrk saw. `refused` are answers of 400 and above, `failed` are requests without an answer."""

    model_config = ConfigDict(frozen=True)

    requests: int
    bytes: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    failed: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Load:
    """How hard, from where, and with what request (a file in the words of `load.lua`; `tokens` is one, too)."""

    wrk: Program
    cores: tuple[int, ...]
    connections: int
    request: Path
    routes: int = 1
    tls: bool = False
    tokens: Path | None = None

    def run(self, port: int, seconds: int) -> Answers:
        """Send for this long and report.

        Raises:
            BenchError: wrk did not end by itself, or any request was refused or failed.
        """
        scheme = "https" if self.tls else "http"
        command = [
            *("setpriv", "--pdeathsig", "TERM", "taskset", "-c", listed(self.cores)),
            *(str(self.wrk.path), "-t", "1", "-c", str(self.connections), "-d", f"{seconds}s", "--timeout", "5s"),
            *("-s", str(_SCRIPT), f"{scheme}://127.0.0.1:{port}/", "--", str(self.request), str(self.routes)),
            *((str(self.tokens),) if self.tokens is not None else ()),
        ]
        try:
            done = subprocess.run(
                command,
                env=os.environ | self.wrk.environment,
                capture_output=True,
                text=True,
                timeout=seconds + 20,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError("wrk did not end in time") from error
        if done.returncode or not done.stdout.strip():
            raise BenchError(f"wrk ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        answers = Answers.model_validate_json(done.stdout.strip().splitlines()[-1])
        if not answers.requests and not answers.failed:
            raise BenchError(f"not one request was answered within {seconds} s: measure for longer (--seconds)")
        if answers.refused or answers.failed:
            raise BenchError(
                f"{answers.refused} of {answers.requests} answers were errors and {answers.failed} requests failed"
            )
        return answers


def listed(cores: Iterable[int]) -> str:
    """Cores in the words of `taskset`."""
    return ",".join(map(str, cores))
