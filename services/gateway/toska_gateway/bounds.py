"""Reading what others send, up to a bound."""

from typing import TYPE_CHECKING

from toska_common.errors import UpstreamError

if TYPE_CHECKING:
    import aiohttp


async def read_at_most(response: "aiohttp.ClientResponse", limit: int) -> bytes:
    """The body of a response.

    Raises:
        UpstreamError: It is longer than `limit` bytes; the rest was not read.
    """
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise UpstreamError(f"it sent more than {limit} bytes")
    return b"".join(parts)
