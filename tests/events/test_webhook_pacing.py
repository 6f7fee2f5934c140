"""When requests may go to a webhook, what receivers say about it, and what their agreement is."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError
from toska_common.targets import LOOPBACK
from toska_events.settings import Settings
from toska_events.webhooks.agreeing import Agreement, question, read_agreement
from toska_events.webhooks.pacing import LONGEST_HOLD_S, Pace, read_retry_after

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def test_requests_are_spread_over_the_minute() -> None:
    pace = Pace(60)
    sent, now = list[float](), 100.0
    while len(sent) < 4:
        now += pace.wait_s(now)
        pace.take(now)
        sent.append(now)
    assert sent == [100.0, 101.0, 102.0, 103.0]
    assert pace.wait_s(200.0) == 0


def test_without_a_rate_nothing_waits_but_for_a_pause_that_the_receiver_wants() -> None:
    pace = Pace(None)
    pace.take(5.0)
    assert pace.wait_s(5.0) == 0
    pace.hold(30.0, 5.0)
    pace.hold(10.0, 6.0)  # a shorter one ends no sooner
    assert pace.wait_s(6.0) == 29.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("86400", LONGEST_HOLD_S),
        ("9" * 400, LONGEST_HOLD_S),
        ("Sat, 31 Jan 2026 12:00:30 GMT", 30.0),
        ("Sat, 31 Jan 2026 12:00:30 -0000", 30.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("\u0665", 0.0),
    ],
)
def test_retry_after_is_read_within_bounds(value: str | None, seconds: float) -> None:
    assert read_retry_after(value, NOW) == seconds
    assert timedelta(seconds=LONGEST_HOLD_S) < timedelta(minutes=30)  # RabbitMQ's patience with what is in hand


def test_a_receiver_may_allow_less_than_was_asked_for_and_never_more() -> None:
    assert question("a.example", None) == {"webhook-request-origin": "a.example"}
    for allowed, asked, rate in (("*", 10, 10), ("5", 10, 5), ("50", 10, 10), ("50", None, 50), ("*", None, None)):
        headers = {"webhook-allowed-origin": "*", "webhook-allowed-rate": allowed}
        assert read_agreement(headers, "a.example", asked) == Agreement("a.example", rate)


def test_loopback_is_led_to_only_where_the_service_is_on_loopback_itself() -> None:
    assert Settings(host="127.0.0.1").webhook_forbidden == ()
    assert Settings(host="0.0.0.0").webhook_forbidden == LOOPBACK
    assert [str(net) for net in Settings(webhook_deny=("10.0.0.0/8",)).webhook_forbidden] == ["10.0.0.0/8"]
    assert Settings(host="0.0.0.0", webhook_deny=()).webhook_forbidden == ()
    with pytest.raises(ValidationError):
        Settings(webhook_deny=("10.0.0.1/8",))
