"""Sends spans to a collector: OTLP over HTTP, in batches, by the parent of the workers.

What the collector does not take for now is sent again with growing pauses; meanwhile a bounded number waits, and what
comes beyond is dropped and counted. No request ever waits for any of this.
Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog
from toska_common import __version__
from toska_common.contracts.routing import Tracing

if TYPE_CHECKING:
    import aiohttp

log = structlog.get_logger(__name__)

MAX_WAITING: Final = 8192
"""Requests whose spans wait for the collector."""
BATCH: Final = 512
_GATHER_S: Final = 0.5
"""How long spans are gathered before they are sent."""
_PATH: Final = "/v1/traces"
_TIMEOUT_S: Final = 10.0
_LAST_S: Final = 1.0
"""How long a gateway that ends tries to send what is left."""
_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 30.0
_AGAIN: Final = frozenset({429, 502, 503, 504})
"""Statuses with which the same batch may be sent again; with others it never would be taken."""


class SpanExporter:
    """One gateway's way to its collector.

    Args:
        instance: What tells this gateway from others in the spans' resource.
        folder: Where relative paths begin.

    Attributes:
        exported: Requests whose spans were taken, since they were last counted.
        dropped: Those whose spans were not, and will not be.
    """

    def __init__(self, instance: str, folder: Path) -> None:
        self._instance = instance
        self._folder = folder
        self._tracing: Tracing | None = None
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._arrived = anyio.Event()
        self._failing = False
        self.exported = 0
        self.dropped = 0

    def configure(self, tracing: Tracing | None) -> None:
        """Send where `tracing` says from now on, or nowhere."""
        self._tracing = tracing

    def put(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Take the spans of requests."""
        room = MAX_WAITING - len(self._waiting)
        if self._tracing is None:
            room = 0
        self._waiting.extend(requests[:room])
        self.dropped += max(0, len(requests) - room)
        self._arrived.set()

    def take_counters(self) -> dict[str, int]:
        """What was counted since the last time."""
        counters = {"traces_exported": self.exported, "traces_dropped": self.dropped}
        self.exported = self.dropped = 0
        return counters

    async def run(self) -> None:
        """Send what comes, until cancelled; then what is left gets a moment."""
        # Not before there is something to send: the client takes a tenth of a second to import, and most need none.
        await self._arrived.wait()
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            try:
                while True:
                    await self._arrived.wait()
                    await anyio.sleep(_GATHER_S)
                    self._arrived = anyio.Event()
                    await self._send_waiting(session)
            finally:
                with anyio.move_on_after(_LAST_S, shield=True):
                    await self._send_waiting(session)

    async def _send_waiting(self, session: "aiohttp.ClientSession") -> None:
        """Send what waits, batch by batch; one that is not taken for now stays in front."""
        pause_s = _PAUSE_S
        while self._waiting:
            batch = list(islice(self._waiting, BATCH))
            outcome = await self._post(session, batch)
            if isinstance(outcome, _Later):
                self._tell_failure(outcome.reason)
                await anyio.sleep(min(max(pause_s, outcome.after_s), _MAX_PAUSE_S))
                pause_s *= 2
                continue
            pause_s = _PAUSE_S
            for _ in batch:
                self._waiting.popleft()
            if outcome:
                self.dropped += len(batch)
                self._tell_failure(outcome)
            else:
                self.exported += len(batch)
                self._tell_success()

    async def _post(self, session: "aiohttp.ClientSession", batch: Sequence[Mapping[str, Any]]) -> "str | _Later":
        """Send a batch once; returns why it will never be taken, or when to send it again; empty: it was taken."""
        import aiohttp

        from toska_gateway.otlp import encode

        tracing = self._tracing
        if tracing is None:
            return "tracing was turned off"
        resource = {"service.name": tracing.service_name, "service.version": __version__}
        body = encode(batch, {**resource, "service.instance.id": self._instance}, __version__)
        try:
            secrets = {name: await self._read(file) for name, file in tracing.header_files.items()}
        except (OSError, ValueError) as error:
            return _Later(f"a file of header_files cannot be read: {error}", 0.0)
        headers = {**tracing.headers, **secrets, "content-type": "application/x-protobuf"}
        try:
            async with session.post(place_of(tracing), data=body, headers=headers, allow_redirects=False) as response:
                await response.read()
                if response.status in _AGAIN:
                    wait = response.headers.get("retry-after", "")
                    return _Later(f"it answers {response.status}", float(wait) if wait.isdigit() else 0.0)
                return "" if response.status == 200 else f"it answers {response.status}"
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            return _Later(str(error) or type(error).__name__, 0.0)

    async def _read(self, file: str) -> str:
        """A header's value; read anew each time, since credentials are renewed."""
        text = (await anyio.Path(self._folder / file).read_text(encoding="ascii")).strip()
        if not text.isprintable():
            raise ValueError(f"{file} has more than one line")
        return text

    def _tell_failure(self, reason: str) -> None:
        if not self._failing and self._tracing is not None:
            log.warning("spans_not_taken", collector=place_of(self._tracing), reason=reason)
        self._failing = True

    def _tell_success(self) -> None:
        if self._failing:
            log.info("spans_taken_again")
        self._failing = False


@dataclass(frozen=True, slots=True)
class _Later:
    """It was not taken for now."""

    reason: str
    after_s: float


def place_of(tracing: Tracing) -> str:
    """Where a collector takes spans."""
    return tracing.endpoint if tracing.endpoint.endswith(_PATH) else tracing.endpoint + _PATH
