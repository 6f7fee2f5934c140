"""Asking a receiver whether it wants events, before it is sent any. Pure.

Source: CloudEvents, HTTP 1.1 Web Hooks for Event Delivery, version 1.0.2, §4.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

ORIGIN = "webhook-request-origin"
_RATE, _ALLOWED_ORIGIN, _ALLOWED_RATE = "webhook-request-rate", "webhook-allowed-origin", "webhook-allowed-rate"
_ANY = "*"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a receiver agreed to: events from `origin`, at most `rate` a minute if that is not `None`."""

    origin: str
    rate: int | None


def question(origin: str, rate: int | None) -> dict[str, str]:
    """Headers of the OPTIONS request."""
    return {ORIGIN: origin, **({} if rate is None else {_RATE: str(rate)})}


def read_agreement(headers: Mapping[str, str], origin: str, rate: int | None) -> Agreement | str:
    """What the answer's headers say, or why that is no agreement; its status says nothing (§4.2).

    Args:
        headers: Found whatever the case of their names.
        origin: What was asked for.
        rate: The same; the receiver may allow less, and never more.
    """
    allowed = headers.get(_ALLOWED_ORIGIN, "").strip()
    if not allowed:
        return "it does not answer OPTIONS with WebHook-Allowed-Origin, so it expects no events"
    if allowed not in (origin, _ANY):
        return f"it agrees to events from {allowed[:100]}, and these are from {origin}"
    given = headers.get(_ALLOWED_RATE, _ANY).strip()  # (only what was asked for must be answered)
    if given == _ANY:
        return Agreement(origin, rate)
    if not _NUMBER.fullmatch(given):
        return f"WebHook-Allowed-Rate is {given[:20]!r}, and neither a number nor *"
    return Agreement(origin, int(given) if rate is None else min(rate, int(given)))
