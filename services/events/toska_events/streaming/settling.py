"""What a client has in hand and is to settle: by its word, or for lateness."""

from dataclasses import dataclass

from toska_common.contracts.eventing import Settlement
from toska_common.events.retrying import Retrying
from toska_common.events.transport import Delivery


@dataclass(frozen=True, slots=True)
class _Held:
    delivery: Delivery
    until: float


class InHand:
    """Deliveries by the ids that a connection gave them.

    Args:
        within_s: How long each may stay.
    """

    def __init__(self, retrying: Retrying, within_s: float) -> None:
        self._retrying = retrying
        self._within_s = within_s
        self._held: dict[int, _Held] = {}

    def take(self, id_: int, delivery: Delivery, now: float) -> None:
        """It is sent, at `now` (monotonic seconds)."""
        self._held[id_] = _Held(delivery, now + self._within_s)

    async def settle(self, settlement: Settlement) -> bool:
        """Do what the client says; false if it has no such event in hand."""
        id_ = next(id_ for id_ in (settlement.ack, settlement.retry, settlement.reject) if id_ is not None)
        held = self._held.pop(id_, None)
        if held is None:
            return False
        if settlement.ack is not None:
            await held.delivery.ack()
        elif settlement.reject is not None:
            await held.delivery.reject(settlement.reason or "the client rejected it")
        else:
            await try_again(held.delivery, self._retrying, settlement.reason or "the client asked for it", settlement)
        return True

    async def take_back(self, now: float) -> None:
        """Hand out again what is late; ids rise with time, so the oldest come first."""
        while self._held:
            id_, held = next(iter(self._held.items()))
            if held.until > now:
                return
            del self._held[id_]
            await try_again(held.delivery, self._retrying, f"not settled within {self._within_s:g} s")


async def try_again(delivery: Delivery, retrying: Retrying, reason: str, settlement: Settlement | None = None) -> None:
    """Retry by the backoff, or when `settlement` says; after the last attempt it is a dead letter."""
    delay = retrying.delay_after(delivery.attempt)
    if delay is None:
        await delivery.reject(f"{reason}; that was attempt {delivery.attempt}, the last one")
        return
    asked = None if settlement is None else settlement.after
    await delivery.retry(delay if asked is None else asked, reason)
