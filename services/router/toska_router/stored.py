"""What the store gives and takes: the state with its revision, news, and who made a change."""

from collections.abc import Sequence
from dataclasses import dataclass

from toska_common.contracts.routing import RoutingDocument

from toska_router.sources import NOTHING, Change


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
