"""What RabbitMQ says when it closes a channel because a user may not publish what was published on it. Pure.

It names the exchange, and the topic where that is what the user has no right to; not the message, which is one of those
that were not confirmed.
"""

import re
from dataclasses import dataclass

_TOPIC = re.compile(r"ACCESS_REFUSED.* topic '(?P<topic>[^']*)' in exchange '(?P<exchange>[^']*)'")
_EXCHANGE = re.compile(r"ACCESS_REFUSED.* exchange '(?P<exchange>[^']*)' in vhost")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What may not be published; `topic` is `None` if it is anything to this exchange."""

    exchange: str
    topic: str | None
    reason: str

    def is_of(self, exchange: str, routing_key: str) -> bool:
        """Whether a message to there is among that."""
        return exchange == self.exchange and self.topic in (None, routing_key)


def read_refusal(reason: str) -> Refusal | None:
    """The refusal in the reason that a channel was closed for; `None` if it was another one."""
    found = _TOPIC.search(reason)
    if found is not None:
        return Refusal(found["exchange"], found["topic"], reason)
    found = _EXCHANGE.search(reason)
    return None if found is None else Refusal(found["exchange"], None, reason)
