"""What the transport over RabbitMQ decides without it: URLs, bytes, acks, order, waits, and what is remembered."""

from datetime import timedelta
from typing import Any

import pamqp.frame
import pytest
from aiormq import spec
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from toska_common.clock import now_utc
from toska_common.errors import ConfigurationError, InvalidInput
from toska_common.events.amqp.acks import Acks
from toska_common.events.amqp.envelope import AT, EXPIRES, SLOT, BadEnvelope, seal, slot_of, unseal
from toska_common.events.amqp.facts import KEPT_RECORDS, Facts, GroupFact, TopicFact, read, with_wait, write
from toska_common.events.amqp.frames import publish_frames
from toska_common.events.amqp.names import (
    SCHEDULE_LEVELS,
    SCHEDULE_UNIT_MS,
    SLOTS,
    Names,
    lane_slots,
    levels_of,
    retry_wait_ms,
)
from toska_common.events.amqp.options import parse_url
from toska_common.events.amqp.order import KeyOrder
from toska_common.events.amqp.precedence import GRACE_S, Precedence
from toska_common.events.amqp.sharing import to_shed
from toska_common.events.amqp.tls import Tls
from toska_common.events.event import Event
from toska_common.events.transport import TopicSettings
from yarl import URL


def an_event(**more: Any) -> Event:
    fields: dict[str, Any] = {"topic": "a.b", "source": "/s", "id": "1", "time": now_utc(), "data": b"{}", **more}
    return Event(**fields)


def frames_of(raw: bytes) -> list[Any]:
    found: list[Any] = []
    while raw:
        size, channel, frame = pamqp.frame.unmarshal(raw)
        assert channel == 7
        found.append(frame)
        raw = raw[size:]
    return found


def test_a_url_names_nodes_and_how_they_are_used() -> None:
    options = parse_url("amqp://me:p%40ss%2F@a,b:5673/my%2Fhost?namespace=shop&log_max_age=3d&window=7&log=false")
    assert [node.place for node in options.nodes] == ["a:5672", "b:5673"]
    urls = [URL(node.url) for node in options.nodes]
    assert {(url.user, url.password, url.raw_path) for url in urls} == {("me", "p@ss/", "/my%2Fhost")}
    assert (options.namespace, options.log_max_age, options.window, options.log) == (
        "shop",
        timedelta(days=3),
        7,
        False,
    )
    assert "p%40ss" not in repr(options)
    assert "p@ss" not in repr(options)


def test_several_urls_may_stand_side_by_side() -> None:
    options = parse_url("amqps://u:p@a?cafile=/ca.pem,amqp://v:q@b")
    assert [(node.place, node.user, node.tls) for node in options.nodes] == [
        ("a:5671", "u", True),
        ("b:5672", "v", False),
    ]
    assert options.tls == Tls(cafile="/ca.pem")


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("amqp://u:s3cret@h?window=many", "window"),
        ("amqp://u:s3cret@h?window=0", "window"),
        ("amqp://u:s3cret@h?log=maybe", "true or false"),
        ("amqp://u:s3cret@h?log_max_age=7", "log_max_age"),
        ("amqp://u:s3cret@h?namespace=a.b", "namespace"),
        ("amqp://u:s3cret@h?max_bytes=1GiB", "max_bytes"),
        ("amqp://u:s3cret@h?colour=red", "colour"),
        ("amqp://u:s3cret@h?cafile=/ca.pem", "cafile in the URL of RabbitMQ is for amqps"),
        ("amqps://u:s3cret@h?keyfile=/k.pem", "no certfile"),
        ("amqps://u:s3cret@h?no_verify_ssl=1", "no parameter 'no_verify_ssl'"),
        ("amqp://u:s3cret@", "no host"),
        ("kafka://u:s3cret@h", "amqp://"),
    ],
)
def test_what_is_wrong_with_a_url_is_named_without_its_password(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        parse_url(url)
    assert "s3cret" not in str(caught.value)


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(max_examples=50)
@given(TEXT, st.none() | TEXT, st.none() | TEXT, st.dictionaries(st.sampled_from(["region", "a1", "zz"]), TEXT))
def test_what_is_sent_is_what_a_client_reads(
    id_: str, subject: str | None, key: str | None, attributes: dict[str, str]
) -> None:
    event = an_event(id=id_, subject=subject, key=key, attributes=attributes, version=2)
    raw = publish_frames(7, "x", "a.b", seal(event, 5, 9), largest=4096, priority=2, expiration_ms=4)
    method, header, body = frames_of(raw)
    assert isinstance(method, spec.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory) == ("x", "a.b", False)
    assert isinstance(header, ContentHeader)
    properties = header.properties
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
    assert (properties.priority, properties.expiration) == (2, "4")
    headers: Any = properties.headers
    assert (headers[AT], headers[EXPIRES], headers.get(SLOT)) == (5, 9, None if key is None else slot_of(key))
    assert isinstance(body, ContentBody)
    assert unseal(headers, properties.content_type or "", body.value) == event


def test_a_body_is_cut_into_frames_that_the_broker_takes() -> None:
    for size in (0, 1, 91, 92, 93, 184, 1000):
        data = bytes(index % 251 for index in range(size))
        _, header, *bodies = frames_of(publish_frames(7, "x", "a.b", seal(an_event(data=data), 1), largest=100))
        assert header.body_size == size
        assert b"".join(body.value for body in bodies) == data
        assert all(len(body.value) + 8 <= 100 for body in bodies)


def test_an_attribute_that_is_no_text_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        seal(an_event(attributes={"region": "\ud800"}), 1)
    assert caught.value.extensions["problems"][0]["field"] == "region"


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "specversion"),
        ({"cloudEvents_specversion": "0.3"}, "CloudEvents 1.0"),
        ({"cloudEvents_specversion": "1.0", "cloudEvents_type": "a"}, "source is missing"),
        ({"cloudEvents_specversion": "1.0", "cloudEvents_type": "a..b", "cloudEvents_source": "s"}, "topic"),
        (
            {
                "cloudEvents_specversion": "1.0",
                "cloudEvents_type": "a",
                "cloudEvents_source": "s",
                "cloudEvents_id": "1",
                "cloudEvents_time": "yesterday",
            },
            "yesterday",
        ),
    ],
)
def test_what_is_no_event_says_why(headers: dict[str, str], why: str) -> None:
    with pytest.raises(BadEnvelope, match=why):
        unseal(headers, "", b"")


@given(st.permutations(range(1, 13)), st.lists(st.booleans(), min_size=12, max_size=12))
def test_acks_stand_for_exactly_what_was_settled(order: list[int], now: list[bool]) -> None:
    acks = Acks()
    unacked = set(range(1, 13))
    settled: set[int] = set()
    for tag, take in zip(order, [*now[:-1], True], strict=True):
        acks.settle(tag)
        settled.add(tag)
        for told, multiple in acks.take() if take else ():
            assert told in unacked  # RabbitMQ closes the channel over a tag that it does not know
            gone = {one for one in unacked if one <= told} if multiple else {told}
            assert gone <= settled
            unacked -= gone
        assert not take or not unacked & settled
    assert not unacked


def test_of_a_key_one_delivery_is_out_at_a_time() -> None:
    order = KeyOrder[str]()
    assert order.offer("k", "1")
    assert not order.offer("k", "2")
    assert order.offer("other", "3")
    assert order.offer(None, "4")
    assert order.offer(None, "5")
    assert order.release(None) is None
    assert order.release("k") == "2"
    assert not order.offer("k", "6")
    assert order.release("k") == "6"
    assert order.release("k") is None
    assert order.offer("k", "7")


def test_lower_priorities_wait_a_moment_for_what_may_be_on_its_way() -> None:
    found = Precedence(prefetch=2)
    for rank in (0, 0, 1):
        found.arrived(rank)
    assert found.wait_s(1, 10.0) == 0
    found.settled(0, 10.0)
    assert found.wait_s(1, 10.0) == pytest.approx(GRACE_S)
    assert found.wait_s(0, 10.0) == 0
    assert found.wait_s(1, 10.0 + 2 * GRACE_S) < 0
    found.arrived(0)
    assert found.wait_s(1, 10.0) == 0
    found.settled(1, 10.0)  # there was room for another all the time, and none came
    assert found.wait_s(2, 10.0) == 0


class _Lane:
    def __init__(self, *, busy: bool = True, shedding: bool = False) -> None:
        self.busy, self.shedding = busy, shedding


def test_a_member_lets_go_of_what_is_more_than_its_share() -> None:
    lanes = [_Lane() for _ in range(8)]
    assert to_shed(lanes, 0) == to_shed(lanes, 1) == []
    assert to_shed(lanes, 2) == lanes[:4]
    assert len(to_shed(lanes, 3)) == 5
    assert len(to_shed(lanes, 100)) == 7
    leaving = [_Lane(shedding=True), _Lane(shedding=True), *(_Lane() for _ in range(4)), _Lane(busy=False)]
    assert to_shed(leaving, 2) == []
    assert to_shed(leaving, 4) == leaving[2:4]


@given(st.integers(1, 10**10))
def test_a_retry_waits_no_shorter_and_an_eighth_longer_at_most(milliseconds: int) -> None:
    wait = retry_wait_ms(timedelta(milliseconds=milliseconds))
    assert milliseconds <= wait <= milliseconds * 1.125
    assert retry_wait_ms(timedelta(milliseconds=wait)) == wait


@given(st.integers(1, (SCHEDULE_UNIT_MS << SCHEDULE_LEVELS) - SCHEDULE_UNIT_MS))
def test_levels_together_hold_an_event_until_its_time_and_a_unit_longer_at_most(milliseconds: int) -> None:
    held = sum(SCHEDULE_UNIT_MS << level for level in levels_of(milliseconds) or [])
    assert milliseconds <= held < milliseconds + SCHEDULE_UNIT_MS


def test_what_is_too_far_off_is_not_held() -> None:
    assert levels_of(SCHEDULE_UNIT_MS << SCHEDULE_LEVELS) is None


@pytest.mark.parametrize("lanes", [1, 2, 3, 8, 64])
def test_every_slot_has_one_lane(lanes: int) -> None:
    shared = lane_slots(lanes)
    assert sorted(slot for slots in shared.values() for slot in slots) == list(range(SLOTS))
    assert len(shared) == lanes
    assert max(map(len, shared.values())) - min(map(len, shared.values())) <= 1


def test_a_keys_slot_is_the_same_for_ever() -> None:
    assert [slot_of(key) for key in ("", "a", "customer 7", "ü")] == [0, 3, 5, 21]


def test_no_two_groups_mean_the_same_queue() -> None:
    names = Names(parse_url("amqp://h"))
    groups = ["a", "a.high", "a-high", "a.dead", "a.lane-0"]
    queues = [
        queue
        for group in groups
        for queue in (*(names.queue(group, level) for level in names.events), names.dead(group), names.lane(group, 0))
    ]
    assert len(set(queues)) == len(queues)
    assert max(len(names.retry(names.lane("g" * 80, 63), 10**9)), len(names.lanes("g" * 80))) < 256


def test_facts_are_written_and_read() -> None:
    topic = TopicSettings("a", timedelta(hours=1), 5, timedelta(seconds=2.5), False, "what happens")
    for fact in (TopicFact(topic, 7, False), GroupFact("g", ("a.*", "#"), 8, (4, 64), False)):
        assert read(write(fact)) == fact
    assert with_wait(GroupFact("g", ("#",), waits=(64,)), 4).waits == (4, 64)


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"group":"g"}', b'{"topic":"a","max_age":"x"}', b"\xff"])
def test_records_of_others_are_no_facts(record: bytes) -> None:
    assert read(record) is None


def test_the_last_fact_is_true_and_old_ones_are_told_again() -> None:
    facts = Facts()
    facts.learn(0, GroupFact("g", ("a",)))
    facts.learn(1, GroupFact("g", ("b",)))
    facts.learn(2, TopicFact(TopicSettings("a"), deleted_at=100))
    facts.learn(3, None)
    assert (facts.last, facts.group("g")) == (3, GroupFact("g", ("b",)))
    assert facts.forgotten("a", 99)
    assert not facts.forgotten("a", 100)
    assert not facts.forgotten("b", 1)
    assert list(facts.fading()) == []
    facts.learn(KEPT_RECORDS + 2, None)
    assert list(facts.fading()) == [GroupFact("g", ("b",))]
    facts.learn(KEPT_RECORDS + 3, GroupFact("g", ("b",), here=False))
    assert facts.group("g") is None
    assert [type(fact) for fact in facts.fading()] == [TopicFact]
