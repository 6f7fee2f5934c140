"""Which acks to send for deliveries that were settled in any order: one for a whole run of them. Pure.

RabbitMQ counts deliveries of a channel from 1; an ack may stand for all up to its tag, which must not be acked already.
"""


class Acks:
    """What was settled and not told yet."""

    def __init__(self) -> None:
        self._settled: set[int] = set()
        self._told: set[int] = set()
        self._next = 1

    def settle(self, tag: int) -> None:
        """A delivery is done with."""
        self._settled.add(tag)

    def take(self) -> list[tuple[int, bool]]:
        """Acks to send now: tags, and whether each stands for all before it as well."""
        found: list[tuple[int, bool]] = []
        last = 0
        settled, told = self._settled, self._told
        while True:
            tag = self._next
            if tag in settled:
                settled.discard(tag)
                last = tag
            elif tag in told:
                told.discard(tag)
            else:
                break
            self._next += 1
        if last:
            found.append((last, True))
        if settled:
            # Beyond one that takes long: told one by one, or whoever delivers would wait for that one as well.
            found += [(tag, False) for tag in sorted(settled)]
            told |= settled
            settled.clear()
        return found
