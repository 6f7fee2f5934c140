"""What the bench asks of a proxy's module: where it is, what version it has, and how it is started."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.parts import Program


@dataclass(frozen=True, slots=True)
class Setup:
    """What a proxy is to be configured with. `folder` is its own."""

    folder: Path
    port: int
    upstreams: tuple[int, ...]
    routes: int


@dataclass(frozen=True, slots=True)
class Proxy:
    """How one is found, and its command line once its configuration is written."""

    name: str
    find: Callable[[], Program]
    version: Callable[[Program], str]
    command: Callable[[Program, Setup], list[str | Path]]
