"""What the store gives and takes: the state with its revision, news, and who made a change."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError
from toska_common.contracts.routing import RoutingDocument
from toska_common.errors import ConfigurationError

from toska_router.documents import NOTHING, Change


@dataclass(frozen=True, slots=True)
class Stored:
    """What holds, and the revision that left it."""

    revision: int = 0
    own: RoutingDocument = NOTHING


@dataclass(frozen=True, slots=True)
class News:
    """What has changed since a revision, and the newest there is."""

    revision: int
    changes: Sequence[Change] = ()


@dataclass(frozen=True, slots=True)
class Author:
    """Who made a change, how and why: `credential` is what they showed, `actor` and `reason` what they said."""

    source: str = "api"
    credential: str = ""
    actor: str = ""
    reason: str = ""


@contextmanager
def readable(kind: str, name: str) -> Generator[None]:
    """Read something of the database inside.

    Raises:
        ConfigurationError: Another release wrote it, which knows more.
    """
    try:
        yield
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise ConfigurationError(
            f"the database has a {kind} {name} that this release cannot read ({reasons}); run the release that wrote it"
        ) from error
