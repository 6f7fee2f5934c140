"""Envoy's administration, on a Unix socket that only this gateway reaches."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from toska_common.errors import UpstreamUnavailable

if TYPE_CHECKING:
    import aiohttp

_TIMEOUT_S = 5.0


class AdminSocket:
    """Asks one Envoy."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str) -> bytes:
        """What Envoy tells there.

        Raises:
            UpstreamUnavailable: It does not answer, or does not want to.
        """
        return await self._ask("GET", path)

    async def post(self, path: str) -> bytes:
        """Have Envoy do something; raises like `get`."""
        return await self._ask("POST", path)

    async def stats(self, pattern: str) -> dict[str, str]:
        """Counters, gauges and texts whose names fit an expression, as they are written."""
        text = await self.get(f"/stats?type=All&filter={quote(pattern, safe='')}")
        pairs = (line.partition(": ") for line in text.decode().splitlines())
        return {name: value.strip('"') for name, _, value in pairs}

    async def aclose(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str) -> bytes:
        import aiohttp  # here: 0.1 s to import, for this engine only

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
            self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._path)), timeout=timeout)
        try:
            async with self._session.request(method, f"http://envoy{path}") as response:
                body = await response.read()
                if response.status != 200:
                    raise UpstreamUnavailable(f"Envoy answers {response.status} for {path.partition('?')[0]}")
                return body
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UpstreamUnavailable(f"Envoy does not answer: {error or type(error).__name__}") from error
