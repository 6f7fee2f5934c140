"""What `toska gateways` says of a gateway."""

from datetime import UTC, datetime
from typing import Any

import pytest
from toska_cli.gateways import describe
from toska_cli.terminal import plain
from toska_common.contracts.router import GatewayStatus

SEEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"up_to_date": True}, "current"),
        ({"up_to_date": True, "applied_after_seconds": 0.0123}, "current, 12 ms after it was published"),
        ({"up_to_date": False}, "behind; asked last at 03:04:05"),
        ({"rejected": "no such cluster", "rejected_version": "abc"}, "refused abc: no such cluster"),
    ],
)
def test_a_gateway_is_said_to_be_current_or_behind_or_why_it_refused(fields: dict[str, Any], said: str) -> None:
    assert describe(GatewayStatus(name="g", version="v", last_seen=SEEN, **fields)) == said


def test_what_others_say_is_no_command_to_a_terminal() -> None:
    assert plain("gw\x1b]0;owned\x07\r\n\u202e äß 漢") == "gw\ufffd]0;owned\ufffd\ufffd\ufffd\ufffd äß 漢"
