"""An app that publishes events and handles its own, for a mesh to run."""

from typing import Any

from fastapi import FastAPI
from toska_common import Mesh
from toska_common.events import EventPayload, Incoming


class NoteTaken(EventPayload, topic="notes.note.taken"):
    """Somebody took a note."""

    text: str


app = FastAPI(title="notes")
mesh = Mesh(app, name="notes")
bus = mesh.events(publishes=[NoteTaken])
handled: list[str] = []


@bus.subscribe(NoteTaken, group="notes")
async def read(incoming: Incoming[NoteTaken]) -> None:
    """Keep what it says."""
    handled.append(incoming.data.text)


@app.post("/notes")
async def take(text: str) -> dict[str, Any]:
    """Take a note."""
    event = await bus.publish(NoteTaken(text=text), key=text)
    return {"id": event.id}


@app.get("/handled")
async def list_handled() -> list[str]:
    """What was handled."""
    return handled
