"""Webhooks: events POSTed, signed, retried and given up; who may subscribe, and where to."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from toska_common.contracts.webhooks import secret_bytes
from toska_events.webhooks.delivering import LOCK
from toska_events.webhooks.signing import Safe, UnreadableSecret, new_secret
from toska_tests.control import web_server
from toska_tests.discovery_rig import RunningDiscovery, discovery_in
from toska_tests.event_services import RunningEvents, events_service
from toska_tests.waiting import PATIENT_S, wait_until

QUICK = {"attempts": 3, "first": "10ms", "factor": 1}


@pytest.fixture(scope="module")
async def discovery(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningDiscovery]:
    home: Path = tmp_path_factory.mktemp("home")
    async with discovery_in(home) as running:
        yield running


@pytest.fixture(scope="module")
async def events(discovery: RunningDiscovery) -> AsyncGenerator[RunningEvents]:
    async with events_service(discovery) as running:
        yield running


@dataclass
class Receiver:
    """What came in; `answers` are given one after the other, the last one for ever.

    Attributes:
        waits: Retry-After of what is no success.
        agrees: Headers of the answer to OPTIONS.
        asked: Headers of requests for agreement.
        times: Of the requests, on the loop's clock.
    """

    port: int = 0
    waits: str = ""
    agrees: dict[str, str] = field(default_factory=dict[str, str])
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    times: list[float] = field(default_factory=list[float])
    answers: list[int] = field(default_factory=lambda: [204])
    paths: set[str] = field(default_factory=set[str])
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list[tuple[dict[str, str], bytes]])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=1"

    @property
    def data(self) -> list[Any]:
        return [json.loads(body)["data"] for _, body in self.requests]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.paths.add(request.path)
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.method == "OPTIONS":
            self.asked.append(headers)
            return web.Response(status=405, headers=self.agrees)  # by the specification, the status says nothing
        self.times.append(anyio.current_time())
        self.requests.append((headers, await request.read()))
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        more = {"location": "/elsewhere"} if status == 307 else {}
        if self.waits and status >= 400:
            more["retry-after"] = self.waits
        return web.Response(status=status, headers=more)

    async def has(self, count: int) -> None:
        await wait_until(lambda: len(self.requests) >= count, within=PATIENT_S, what=f"{count} requests")


@asynccontextmanager
async def receiving(*answers: int) -> AsyncGenerator[Receiver]:
    receiver = Receiver(answers=list(answers) or [204])
    async with web_server(receiver.handle) as receiver.port:
        yield receiver


@asynccontextmanager
async def subscribed(
    events: RunningEvents, receiver: Receiver, topic: str, **draft: Any
) -> AsyncGenerator[dict[str, Any]]:
    body = {"topics": [topic], "url": receiver.url, "retrying": QUICK, **draft}
    answer = await events.ask("POST", "subscribe", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/api/v1/events/subscriptions/{made['id']}"
    yield made
    await events.ask("DELETE", f"subscriptions/{made['id']}")


async def publish(events: RunningEvents, topic: str, data: Any, **options: Any) -> None:
    await events.post("publish", {"topic": topic, "data": data, **options})


async def test_an_event_is_posted_as_a_signed_cloudevent(events: RunningEvents) -> None:
    async with receiving() as receiver, subscribed(events, receiver, "hook.*", where={"region": "eu"}) as made:
        await publish(events, "hook.a", 0)
        await publish(events, "hook.a", {"n": 1}, attributes={"region": "eu"})
        await receiver.has(1)
        headers, body = receiver.requests[0]
    assert headers["content-type"] == "application/cloudevents+json"
    assert (json.loads(body)["type"], json.loads(body)["data"]) == ("hook.a", {"n": 1})
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert "authorization" not in headers


async def test_events_published_right_after_subscribing_are_sent(events: RunningEvents) -> None:
    async with receiving() as receiver, subscribed(events, receiver, "at.once"):
        for number in range(20):
            await publish(events, "at.once", number)
        await receiver.has(20)
        assert sorted(receiver.data) == list(range(20))


@pytest.mark.parametrize("status", [500, 404, 307])
async def test_what_is_not_taken_is_sent_again_with_the_same_id(events: RunningEvents, status: int) -> None:
    topic = f"again.s{status}"
    async with receiving(status, 204) as receiver, subscribed(events, receiver, topic):
        await publish(events, topic, 1)
        await receiver.has(2)
        first, second = (headers["webhook-id"] for headers, _ in receiver.requests)
        assert first == second
        assert receiver.paths == {"/hook"}


async def test_after_its_last_attempt_an_event_is_a_dead_letter(events: RunningEvents) -> None:
    async with receiving(503) as receiver, subscribed(events, receiver, "dies.x") as made:
        await publish(events, "dies.x", 1)

        async def is_dead() -> bool:
            return len(await events.get(f"dead-letters?group={made['group']}")) == 1

        await wait_until(is_dead, within=PATIENT_S)
        letter = (await events.get(f"dead-letters?group={made['group']}"))[0]
        assert (letter["attempts"], len(receiver.requests)) == (3, 3)
        assert letter["reason"] == "the webhook answered 503; that was attempt 3, the last one"


async def test_a_receiver_that_is_late_or_not_there_is_named_as_such(events: RunningEvents) -> None:
    async with receiving() as receiver:
        gone = receiver.port
    once = {"attempts": 1}
    async with subscribed(events, Receiver(port=gone), "absent.x", retrying=once, group="absent"):
        await publish(events, "absent.x", 1)

        async def is_dead() -> bool:
            return len(await events.get("dead-letters?group=absent")) == 1

        await wait_until(is_dead, within=PATIENT_S)
    reason = (await events.get("dead-letters?group=absent"))[0]["reason"]
    assert reason.startswith("it could not be sent: ClientConnector")
    assert "key=1" not in reason


async def test_a_receiver_that_says_gone_is_unsubscribed(events: RunningEvents) -> None:
    async with receiving(410) as receiver, subscribed(events, receiver, "gone.x") as made:
        await publish(events, "gone.x", 1)

        async def is_unsubscribed() -> bool:
            return (await events.ask("GET", f"subscriptions/{made['id']}")).status_code == 404

        await wait_until(is_unsubscribed, within=PATIENT_S)
        await until_group(events, made["group"], there=False)
        assert len(receiver.requests) == 1


async def until_group(events: RunningEvents, name: str, *, there: bool) -> None:
    async def is_so() -> bool:
        return (name in [group["name"] for group in await events.get("groups")]) == there

    await wait_until(is_so, within=PATIENT_S, what=f"the group {name}: {there}")


async def test_a_receiver_is_asked_and_its_agreement_kept_to(events: RunningEvents) -> None:
    async with receiving() as receiver:
        receiver.agrees = {"WebHook-Allowed-Origin": "toska-events", "WebHook-Allowed-Rate": "240"}
        async with subscribed(events, receiver, "agreed.x", handshake=True, rate=6000) as made:
            assert (made["agreed"], made["rate"]) == (True, 240)
            for number in range(4):
                await publish(events, "agreed.x", number)
            await receiver.has(4)
    (asked,) = receiver.asked
    assert (asked["webhook-request-origin"], asked["webhook-request-rate"]) == ("toska-events", "6000")
    assert {headers["webhook-request-origin"] for headers, _ in receiver.requests} == {"toska-events"}
    assert receiver.times[3] - receiver.times[0] > 0.25  # 0.75 s, less what the first took longer to arrive


@pytest.mark.parametrize(
    ("agrees", "said"),
    [
        ({}, "expects no events"),
        ({"WebHook-Allowed-Origin": "other.example"}, "events from other.example"),
        ({"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "0"}, "neither a number nor"),
    ],
)
async def test_where_a_receiver_does_not_agree_nothing_is_subscribed(
    events: RunningEvents, agrees: dict[str, str], said: str
) -> None:
    async with receiving() as receiver:
        receiver.agrees = agrees
        body = {"topics": ["refused.x"], "url": receiver.url, "handshake": True}
        answer = await events.ask("POST", "subscribe", json=body)
        assert answer.status_code == 422
        assert said in answer.json()["problems"][0]["reason"]
        assert receiver.url not in [item["url"] for item in await events.get("subscriptions")]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_wants_a_pause_gets_nothing_until_then(events: RunningEvents, status: int) -> None:
    topic = f"paused.s{status}"
    async with receiving(status, 204) as receiver, subscribed(events, receiver, topic) as made:
        receiver.waits = "1"
        await publish(events, topic, 1)
        await receiver.has(1)
        await publish(events, topic, 2)
        await receiver.has(3)
        assert made["agreed"] is False
        assert receiver.asked == []
    assert receiver.times[1] - receiver.times[0] > 0.95
    assert sorted(receiver.data) == [1, 1, 2]


async def test_a_webhook_is_shown_without_its_secret_and_unsubscribed(events: RunningEvents) -> None:
    async with receiving() as receiver, subscribed(events, receiver, "shown.x", description="for billing") as made:
        shown = await events.get(f"subscriptions/{made['id']}")
        assert (shown["url"], shown["topics"], shown["description"]) == (receiver.url, ["shown.x"], "for billing")
        assert "secret" not in json.dumps(shown)
        assert shown in await events.get("subscriptions")
        stored = await events.http.get(
            f"{events.discovery.consul}/v1/kv/toska/events/webhooks/{made['id']}?raw",
            headers=events.discovery.bearer(),
        )
        assert made["secret"].removeprefix("whsec_") not in stored.text
        await until_group(events, made["group"], there=True)
        assert (await events.ask("DELETE", f"subscriptions/{made['id']}")).status_code == 204
        assert (await events.ask("DELETE", f"subscriptions/{made['id']}")).status_code == 404
        await until_group(events, made["group"], there=False)


async def test_a_secret_of_ones_own_is_used(events: RunningEvents) -> None:
    secret = new_secret()
    async with receiving() as receiver, subscribed(events, receiver, "own.x", secret=secret) as made:
        assert made["secret"] == secret


async def test_webhooks_need_the_admin_token_even_for_reading(events: RunningEvents) -> None:
    for method, path in (
        ("POST", "subscribe"),
        ("GET", "subscriptions"),
        ("GET", "subscriptions/x"),
        ("DELETE", "subscriptions/x"),
    ):
        body = {"topics": ["a"], "url": "http://127.0.0.1:1/"} if method == "POST" else None
        assert (await events.ask(method, path, json=body, access="")).status_code == 401, path
        assert (await events.ask(method, path, json=body, access="join")).status_code == 403, path


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        ({"topics": []}, "body.topics"),
        ({"topics": ["a..b"]}, "body.topics"),
        ({"url": "ftp://a/"}, "body.url"),
        ({"url": "https://user:secret@a/"}, "body.url"),
        ({"url": "https://a:99999/"}, "body.url"),
        ({"url": "http://169.254.169.254/latest"}, "body.url"),
        ({"url": "http://[::ffff:169.254.169.254]/"}, "body.url"),
        ({"url": "http://2852039166/latest"}, "body.url"),
        ({"url": "http://169.16689662/"}, "body.url"),
        ({"rate": 0}, "body.rate"),
        ({"group": "webhook-mine"}, "body.group"),
        ({"where": {"Region": "eu"}}, "body.where"),
        ({"secret": "hunter2"}, "body.secret"),
        ({"retrying": {"attempts": 0}}, "body.retrying.attempts"),
        ({"timeout": "2m"}, "body.timeout"),
        ({"more": 1}, "body.more"),
    ],
)
async def test_what_is_wrong_with_a_webhook_is_named(events: RunningEvents, draft: dict[str, Any], field: str) -> None:
    answer = await events.ask("POST", "subscribe", json={"topics": ["a"], "url": "https://a.example/", **draft})
    assert answer.status_code == 422, answer.text
    assert answer.json()["problems"][0]["field"] == field
    assert "hunter2" not in answer.text


def _own_port(events: RunningEvents) -> int:
    return events.settings.port


def _registry_port(events: RunningEvents) -> int:
    return events.discovery.settings.consul_port


@pytest.mark.parametrize("place", [_own_port, _registry_port])
async def test_no_webhook_leads_into_the_mesh_itself(
    events: RunningEvents, place: Callable[[RunningEvents], int]
) -> None:
    url = f"http://127.0.0.1:{place(events)}/"
    answer = await events.ask("POST", "subscribe", json={"topics": ["a"], "url": url})
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (422, "body.url")
    # A name is looked at when it is resolved: the event is not sent, and why is said.
    named = Receiver(port=place(events))
    body = {"topics": ["inward.x"], "url": named.url.replace("127.0.0.1", "localhost"), "retrying": {"attempts": 1}}
    made = await events.post("subscribe", body)
    await publish(events, "inward.x", 1)

    async def is_dead() -> bool:
        return len(await events.get(f"dead-letters?group={made['group']}")) == 1

    await wait_until(is_dead, within=PATIENT_S)
    letter = (await events.get(f"dead-letters?group={made['group']}"))[0]
    assert letter["reason"].startswith("it could not be sent: ClientConnector")
    await events.ask("DELETE", f"subscriptions/{made['id']}")


async def test_one_events_service_delivers_and_its_successor_goes_on(tmp_path: Path) -> None:
    async with discovery_in(tmp_path) as discovery, receiving() as receiver:
        async with events_service(discovery) as first:
            made = await first.post("subscribe", {"topics": ["next.x"], "url": receiver.url})
            await publish(first, "next.x", 1)
            await receiver.has(1)
            holder = await first.http.get(f"{discovery.consul}/v1/kv/{LOCK}?raw", headers=discovery.bearer())
            assert holder.text == f"127.0.0.1:{first.settings.port}"
        async with events_service(discovery) as second:
            await publish(second, "next.x", 2)
            await receiver.has(2)
            assert [item["id"] for item in await second.get("subscriptions")] == [made["id"]]
    assert receiver.data == [1, 2]


def test_a_secret_opens_for_its_webhook_and_its_admin_token_alone() -> None:
    secret = new_secret()
    sealed = Safe("one").seal(secret, "a")
    assert Safe("one").open(sealed, "a") == secret
    assert len(secret_bytes(secret)) == 32
    for safe, webhook in ((Safe("other"), "a"), (Safe("one"), "b")):
        with pytest.raises(UnreadableSecret):
            safe.open(sealed, webhook)
