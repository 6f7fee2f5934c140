"""An app's events in a mesh of the laptop kind: published, handled, described, and guarded by schemas."""

from pathlib import Path

import pytest
from toska_common.events.errors import EventsUnavailable
from toska_common.mesh.eventing import Eventing
from toska_common.mesh.location import Location
from toska_tests import events_app
from toska_tests.clients import http_client
from toska_tests.meshes import joined_app, toska_up
from toska_tests.waiting import PATIENT_S, wait_until


async def test_an_app_publishes_and_handles_events_in_three_lines(tmp_path: Path) -> None:
    async with (
        toska_up(tmp_path, "--no-examples") as mesh,
        joined_app(mesh, events_app, "notes"),
        http_client() as client,
    ):

        async def is_handled() -> bool:
            # A group begins where it was first subscribed, which may be after the first note.
            assert (await client.post(f"{mesh.gateway}/notes/notes?text=milk")).status_code == 200
            return "milk" in (await client.get(f"{mesh.gateway}/notes/handled")).json()

        await wait_until(is_handled, within=PATIENT_S, what="the app has handled its own event")
        document = (await client.get(f"{mesh.gateway}/notes/asyncapi.json")).json()
        assert set(document["operations"]) == {"publish.notes.note.taken", "read.notes.note.taken"}
        api = f"{mesh.url('events')}/api/v1/events"
        (schema,) = (await client.get(f"{api}/schemas")).json()
        assert (schema["topic"], schema["versions"][0]["service"]) == ("notes.note.taken", "notes")
        (entry, *_) = (await client.get(f"{api}/log", params={"topic": "notes.#"})).json()
        assert (entry["event"]["source"], entry["event"]["data"]) == ("/services/notes", {"text": "milk"})
        assert entry["event"]["traceparent"].startswith("00-")


def test_without_a_mesh_on_this_machine_there_is_no_log() -> None:
    eventing = Eventing("notes", "embedded://", lambda: Location("http://127.0.0.1:8500"))
    with pytest.raises(EventsUnavailable, match="toska up"):
        eventing.connect()
