"""Reading server-sent events as they come."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from toska_tests.event_services import RunningEvents
from toska_tests.waiting import PATIENT_S


class Reader:
    """Reads messages of a stream, with their fields; comments are counted.

    Attributes:
        last_id: What it would come back with.
    """

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.comments = 0
        self.last_id = ""

    async def next(self) -> dict[str, str]:
        """The next message."""
        found: dict[str, str] = {}
        with anyio.fail_after(PATIENT_S):
            while True:
                line = await anext(self._lines)
                if not line and "data" in found:
                    self.last_id = found.get("id", self.last_id)
                    return found
                name, _, value = line.partition(": ")
                if name:
                    found[name] = value
                elif line:
                    self.comments += 1

    async def data(self) -> Any:
        """The data of the next event."""
        return json.loads((await self.next())["data"])["data"]


@asynccontextmanager
async def reading(events: RunningEvents, query: str, *, last: str = "", access: str = "") -> AsyncGenerator[Reader]:
    """A stream that is ready."""
    headers = {**(events.bearer(access) if access else {}), **({"last-event-id": last} if last else {})}
    async with events.http.stream("GET", f"{events.url}/stream?{query}", headers=headers, timeout=PATIENT_S) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        reader = Reader(answer.aiter_lines())
        assert (await reader.next())["event"] == "ready"
        yield reader
