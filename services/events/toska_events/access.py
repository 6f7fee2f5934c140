"""What the join token suffices for: publishing an app's own events, and proposing their schemas."""

import re

from toska_common.credentials import Access
from toska_common.errors import Forbidden
from toska_common.events.topics import is_reserved

PREFIX = "/api/v1/events"

_BY_JOIN = re.compile(rf"POST {PREFIX}/(?:publish|schemas/[^/]+/versions)")


def join_suffices(method: str, path: str) -> bool:
    """Whether a change needs no more than the join token."""
    return _BY_JOIN.fullmatch(f"{method} {path}") is not None


def require_own(topic: str, access: Access | None) -> None:
    """Keep the mesh's own topics to the admin token.

    Raises:
        Forbidden: The topic is the mesh's, and `access` is less.
    """
    if is_reserved(topic) and access is not Access.ADMIN:
        raise Forbidden(f"{topic} is a topic of the mesh itself: the admin token is needed", needs="admin")
