"""How many may follow events at a time."""

from collections.abc import Generator
from contextlib import contextmanager

from toska_common.errors import UpstreamUnavailable

from toska_events.parts import Parts


@contextmanager
def place(parts: Parts) -> Generator[None]:
    """One reader's place for the block.

    Raises:
        UpstreamUnavailable: All are taken.
    """
    if parts.streams >= parts.settings.max_streams:
        raise UpstreamUnavailable(f"{parts.streams} readers follow events already", retry_after_s=1)
    parts.streams += 1
    try:
        yield
    finally:
        parts.streams -= 1
