"""A case: routing, upstreams, and what has to happen. Plain data; `steps` has the verbs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from toska_tests.gateways import route
from toska_tests.raw_http import Script

if TYPE_CHECKING:
    from toska_tests.conformance.stage import Stage

Want = bytes | None | re.Pattern[bytes] | tuple[bytes, ...]
"""What a field has to be: this value, absent, a value of this form, or so many lines."""
Wants = Mapping[str, Want]
NOTHING: Final[Wants] = {}

DEAD: Final = b"dead"
"""An upstream that refuses connections."""


class Step(Protocol):
    """Something that a client does, and what must come of it."""

    async def play(self, stage: "Stage") -> None:
        """Do it.

        Raises:
            AssertionError: Something else came of it.
        """
        ...


@dataclass(frozen=True)
class Case:
    """One thing that every engine does alike.

    Attributes:
        name: A sentence; its first words are what an engine's list of exceptions calls it by.
        steps: In order, on one client connection as far as that stays open.
        routes: Of the document. Clusters that they lead to and `clusters` does not have are one upstream of that name.
        clusters: Whose endpoints are names of upstreams, or mappings with an `upstream` in them.
        upstreams: How those behave that do not answer 200 `ok`: by a fixed answer, a script, or `DEAD`.
        server: Of the document.
    """

    name: str
    steps: Sequence[Step]
    routes: Sequence[Mapping[str, Any]] = field(default_factory=lambda: (route("all", "/", "a"),))
    clusters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    upstreams: Mapping[str, Script | bytes] = field(default_factory=dict[str, Script | bytes])
    server: Mapping[str, Any] = field(default_factory=dict[str, Any])


def policies(**chosen: Any) -> tuple[Mapping[str, Any], ...]:
    """The usual single route, with these policies."""
    return (route("all", "/", "a", policies=chosen),)


def check(what: str, lines: Sequence[bytes], want: Want) -> None:
    """Hold a field's lines to what they have to be."""
    if want is None:
        assert not lines, f"{what}: {lines} should not be there"
    elif isinstance(want, tuple):
        assert tuple(lines) == want, f"{what}: {lines}, and not {want}"
    elif isinstance(want, bytes):
        assert list(lines) == [want], f"{what}: {lines}, and not {want!r}"
    else:
        assert len(lines) == 1 and want.fullmatch(lines[0]), f"{what}: {lines} is not of the form {want.pattern!r}"
