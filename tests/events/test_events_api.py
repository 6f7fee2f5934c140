"""The events service over HTTP: publishing in every form, topics, groups, dead letters, and who may."""

import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from toska_common.clock import now_utc
from toska_common.events import EventBus, Incoming, Reject, Retrying
from toska_common.events.opening import open_transport
from toska_tests.discovery_rig import discovery_in
from toska_tests.event_services import RunningEvents, events_service
from toska_tests.waiting import PATIENT_S, wait_until


@pytest.fixture(scope="module")
async def events(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningEvents]:
    home: Path = tmp_path_factory.mktemp("home")
    async with discovery_in(home) as discovery, events_service(discovery, max_event_bytes=4096) as running:
        yield running


def bus_at(events: RunningEvents, service: str = "billing") -> EventBus:
    token, home = events.settings.credentials().join, events.settings.home
    return EventBus(service, lambda: open_transport("embedded://", home=home, token=token, service=service))


CLOUD_EVENT = {"specversion": "1.0", "id": "1", "source": "/elsewhere", "type": "forms.structured", "data": {"n": 1}}


async def test_every_form_of_an_event_is_taken_and_read_again(events: RunningEvents) -> None:
    plain = await events.post("publish", {"topic": "forms.plain", "data": {"n": 0}, "key": "k", "subject": "s"})
    structured = json.dumps(CLOUD_EVENT)
    batch = json.dumps([{**CLOUD_EVENT, "id": f"b-{number}", "type": "forms.batch"} for number in range(3)])
    for media, body in (("cloudevents+json", structured), ("cloudevents-batch+json", batch)):
        headers = {"content-type": f"application/{media}; charset=utf-8"}
        assert (await events.ask("POST", "publish", content=body, headers=headers)).status_code == 201
    headers = {"content-type": "text/plain", "ce-specversion": "1.0", "ce-id": "b", "ce-source": "/s%20x"}
    binary = await events.ask(
        "POST", "publish", content=b"hello", headers={**headers, "ce-type": "forms.binary", "ce-region": "eu"}
    )
    assert binary.json() == {"ids": ["b"]}
    found = [entry["event"] for entry in await events.get("log?topic=forms.%23")]
    assert [event["type"] for event in found] == [
        "forms.plain", "forms.structured", "forms.batch", "forms.batch", "forms.batch", "forms.binary",
    ]  # fmt: skip
    assert (found[0]["id"], found[0]["partitionkey"], found[0]["source"]) == (plain["ids"][0], "k", "/http")
    assert (found[1]["data"], found[1]["source"]) == ({"n": 1}, "/elsewhere")
    assert (found[5]["data_base64"], found[5]["source"], found[5]["region"]) == ("aGVsbG8=", "/s x", "eu")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"topic": "a b"}, "topic"),
        ({"data": 1}, "topic"),
        ({"topic": "a", "more": 1}, "more"),
        ({"topic": "a", "delay": "-1s"}, "delay"),
        ({"topic": "a", "delay": "1s", "deliver_at": "2026-01-01T00:00:00Z"}, ""),
        ({"topic": "a", "attributes": {"Region": "eu"}}, "Region"),
        ({"topic": "a", "priority": "urgent"}, "priority"),
        ({"topic": "a", "deliver_at": "9999-12-31T23:59:59-10:00"}, "deliver_at"),
        ({"topic": "a", "key": "1\n2"}, "partitionkey"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_published(
    events: RunningEvents, body: dict[str, Any], field: str
) -> None:
    answer = await events.ask("POST", "publish", json=body)
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["field"] == field
    assert await events.get("log?topic=a") == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("log?topic=a&since=0001-01-01T00:00:00%2B23:00", "query.since"),
        ("log?topic=a&offset=99999999999999999999", "query.offset"),
        ("stream?topic=a&since=0001-01-01T00:00:00%2B23:00", "query.since"),
        ("stream?topic=a&offset=99999999999999999999", "query.offset"),
    ],
)
async def test_a_start_out_of_this_world_is_refused(events: RunningEvents, path: str, field: str) -> None:
    answer = await events.ask("GET", path)
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, field)


@pytest.mark.parametrize("media", ["application/json", "application/cloudevents+json"])
async def test_a_number_that_json_has_not_is_refused(events: RunningEvents, media: str) -> None:
    body = '{"topic": "a", "specversion": "1.0", "id": "1", "source": "/s", "type": "a", "data": {"n": 1e999}}'
    if media == "application/json":
        body = '{"topic": "a", "data": {"n": 1e999}}'
    answer = await events.ask("POST", "publish", content=body, headers={"content-type": media})
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "data")


async def test_a_batch_with_one_wrong_event_publishes_none(events: RunningEvents) -> None:
    batch = json.dumps([{**CLOUD_EVENT, "type": "whole.batch"}, {**CLOUD_EVENT, "id": ""}])
    headers = {"content-type": "application/cloudevents-batch+json"}
    answer = await events.ask("POST", "publish", content=batch, headers=headers)
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "[1].id")
    assert await events.get("log?topic=whole.%23") == []


async def test_what_is_no_event_or_too_large_is_refused(events: RunningEvents) -> None:
    assert (await events.ask("POST", "publish", content=b"x")).status_code == 415
    answer = await events.ask("POST", "publish", json={"topic": "large", "data": "x" * 5000})
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/event-too-large")


async def test_publishing_takes_a_token_and_the_meshes_own_topics_the_admins(events: RunningEvents) -> None:
    body = {"topic": "mesh.instance.registered", "data": 1}
    assert (await events.ask("POST", "publish", json=body, access="")).status_code == 401
    assert (await events.ask("POST", "publish", json=body, access="join")).status_code == 403
    assert (await events.ask("POST", "publish", json={"topic": "own.topic"}, access="join")).status_code == 201
    for method, path, sent in (
        ("PUT", "topics/own.topic", {}),
        ("DELETE", "topics/own.topic", None),
        ("DELETE", "groups/billing", None),
        ("POST", "groups/billing/seek", {"now": True}),
        ("POST", "dead-letters/purge", {"group": "billing"}),
        ("DELETE", "schemas/own.topic", None),
    ):
        assert (await events.ask(method, path, json=sent, access="join")).status_code == 403, path


async def test_a_topic_is_created_described_and_deleted(events: RunningEvents) -> None:
    answer = await events.ask("PUT", "topics/shop.cart.left", json={"max_age": "1h", "description": "Carts"})
    assert answer.status_code == 200
    assert (answer.json()["max_age_seconds"], answer.json()["events"]) == (3600, 0)
    await events.post("publish", {"topic": "shop.cart.left", "data": 1})
    entry = await events.get("topics/shop.cart.left")
    assert (entry["events"], entry["published"], entry["first_offset"]) == (1, 1, entry["last_offset"])
    assert "shop.cart.left" in [item["name"] for item in await events.get("topics")]
    assert (await events.ask("DELETE", "topics/shop.cart.left")).status_code == 204
    assert (await events.ask("GET", "topics/shop.cart.left")).status_code == 404
    assert (await events.ask("PUT", "topics/shop.cart.left", json={"max_age": "soon"})).status_code == 422


async def test_a_dead_letter_is_looked_at_driven_again_and_a_group_sought_back(events: RunningEvents) -> None:
    refuse, seen = [True], list[int]()
    bus = bus_at(events)

    @bus.subscribe("dead.#", group="undertaker", retrying=Retrying(attempts=1))
    async def handle(incoming: Incoming[Any]) -> None:
        if refuse[0]:
            raise Reject("not today")
        seen.append(incoming.data)

    async def waiting() -> list[Any]:
        return await events.get("dead-letters?group=undertaker")

    async def is_dead() -> bool:
        return len(await waiting()) == 2

    async def are_seen() -> bool:
        return len(seen) == 2

    async with bus.open():
        await bus.subscribed()
        for number in range(2):
            await events.post("publish", {"topic": "dead.letter", "data": number})
        await wait_until(is_dead, within=PATIENT_S)
        first, second = await waiting()
        assert (first["reason"], first["attempts"], first["event"]["data"]) == ("not today", 1, 0)
        assert await events.get(f"dead-letters/{first['id']}") == first
        assert await events.get(f"dead-letters?group=undertaker&after={first['id']}") == [second]
        refuse[0] = False
        assert await events.post("dead-letters/redrive", {"group": "undertaker"}) == {"count": 2}
        await wait_until(are_seen, within=PATIENT_S)
        assert (await events.ask("POST", "groups/undertaker/seek", json={"beginning": True})).status_code == 409
        assert (await events.ask("GET", f"dead-letters/{first['id']}")).status_code == 404
    entry = await events.post("groups/undertaker/seek", {"beginning": True})
    assert (entry["lag"], entry["members"], entry["topics"]) == (2, 0, ["dead.#"])
    assert (await events.ask("DELETE", "groups/undertaker")).status_code == 204
    assert (await events.ask("GET", "groups/undertaker")).status_code == 404


@pytest.mark.parametrize("body", [{}, {"beginning": True, "offset": 3}, {"beginning": False}, {"offset": -1}])
async def test_a_start_is_one_of_four(events: RunningEvents, body: dict[str, Any]) -> None:
    assert (await events.ask("POST", "groups/any/seek", json=body)).status_code == 422


async def test_the_log_is_read_from_an_offset_or_a_time(events: RunningEvents) -> None:
    before = now_utc()
    for number in range(3):
        await events.post("publish", {"topic": "read.again", "data": number})
    every = await events.get("log?topic=read.again")
    assert [entry["event"]["data"] for entry in every] == [0, 1, 2]
    assert await events.get(f"log?topic=read.again&offset={every[1]['offset']}") == every[1:]
    assert await events.get("log?topic=read.again&limit=1") == every[:1]
    since = before.isoformat().replace("+00:00", "Z")
    assert await events.get(f"log?topic=read.again&since={since}") == every
    later = (now_utc() + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    assert await events.get(f"log?topic=read.again&since={later}") == []
    assert (await events.ask("GET", f"log?topic=read.again&offset=1&since={since}")).status_code == 422
    assert (await events.ask("GET", "log?topic=a..b")).status_code == 422


async def test_schemas_are_taken_refused_and_kept_in_the_registry(events: RunningEvents) -> None:
    def schema(*required: str) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: {"type": "string"} for name in required},
            "required": [*required],
        }

    path = "schemas/orders.order.placed/versions?service=orders"
    first = await events.post(path, {"version": 1, "schema": schema("id")}, access="join")
    assert (first["compatibility"], first["versions"][0]["service"]) == ("backward", "orders")
    assert await events.post(path, {"version": 1, "schema": schema("id")}, access="join") == first
    wider = {"version": 2, "schema": schema("id", "note")}
    refused = await events.ask("POST", path, json=wider, access="join")
    assert (refused.status_code, refused.json()["problems"][0]["field"]) == (409, "body.schema")
    assert "$.note: is required" in refused.json()["detail"]
    upcast = {**wider, "upcasts_from": [1]}
    assert len((await events.post(f"{path}&dry_run=true", upcast))["versions"]) == 2
    assert await events.get("schemas/orders.order.placed") == first
    assert len((await events.post(path, upcast))["versions"]) == 2
    assert (await events.get("schemas/orders.order.placed/versions/2"))["schema"] == wider["schema"]
    changed = await events.ask("PUT", "schemas/orders.order.placed/compatibility", json={"compatibility": "full"})
    assert changed.json()["compatibility"] == "full"
    assert [item["topic"] for item in await events.get("schemas")] == ["orders.order.placed"]
    stored = await events.http.get(
        f"{events.discovery.consul}/v1/kv/toska/events/schemas/?keys", headers=events.discovery.bearer()
    )
    assert stored.json() == ["toska/events/schemas/orders.order.placed"]
    assert (await events.ask("DELETE", "schemas/orders.order.placed")).status_code == 204
    assert (await events.ask("GET", "schemas/orders.order.placed")).status_code == 404
    own = await events.ask("POST", "schemas/mesh.x.y/versions", json={"version": 1, "schema": {}}, access="join")
    assert own.status_code == 403
