"""What a mesh looks like to whoever started it: plain data that the table and the JSON line are made of."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PartView:
    """One service or example."""

    name: str
    state: str
    url: str
    note: str = ""

    @property
    def port(self) -> int:
        """The port of its URL."""
        return int(self.url.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class MeshView:
    """A mesh that is ready.

    Attributes:
        ready_in_s: Seconds from the command's start.
        docs: Where its API documentation is; `None` if the data listener does not serve it.
        try_it: Shell commands to begin with.
    """

    home: str
    pid: int
    ready_in_s: float
    urls: dict[str, str]
    parts: tuple[PartView, ...]
    docs: str | None
    try_it: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The members of the line that `--json` prints."""
        return asdict(self)
