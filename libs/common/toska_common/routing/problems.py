"""What is wrong with routing that a person wrote: every problem, each with its path in the document and its line."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from toska_common.errors import InvalidInput

Location = tuple[str | int, ...]
"""Where a value stands in a document: keys and indexes from its root."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem before anybody has looked up its line."""

    location: Location
    reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, such as `routes[3].match.path` on line 17 (from 1; `None` if lines are not known)."""

    path: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (f"line {self.line}" if self.line else "", self.path) if part)
        return f"{where}: {self.reason}" if where else self.reason


class InvalidDocument(InvalidInput):
    """Routing that cannot be used; nothing of it is. `problems` names all that is wrong, in the document's order."""

    status, code, title = 422, "invalid-routing", "Invalid routing"

    def __init__(self, problems: Sequence[Problem], *, source: str) -> None:
        self.source = source
        self.problems = tuple(problems)
        listed = [
            {"field": problem.path, "reason": problem.reason, **({"line": problem.line} if problem.line else {})}
            for problem in self.problems
        ]
        super().__init__(f"{source}: " + "; ".join(str(problem) for problem in self.problems), problems=listed)


def format_location(location: Location) -> str:
    """Write a location as people do: `routes[3].match.path`, `clusters["a.b"].endpoints[0]`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def suggestion(word: str, known: Collection[str]) -> str:
    """` (did you mean "x"?)`, if one of `known` is close to `word`."""
    close = get_close_matches(word, known, n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""
