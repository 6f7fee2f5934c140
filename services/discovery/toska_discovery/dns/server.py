"""Queries in, answers out: the DNS server without its sockets.

What the zone knows about a question is kept, encoded, until the index that it goes by moves on; the rest of a lookup
is to draw a few of its groups at random and to put them behind the question, which takes some 10 µs.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from toska_discovery.dns.names import ForeignName
from toska_discovery.dns.policy import DnsPolicy
from toska_discovery.dns.wire import (
    AA,
    ANY_CLASS,
    HEADER,
    IN,
    OPCODE_MASK,
    QR,
    RA,
    RD,
    TC,
    Malformed,
    Query,
    Rcode,
    Type,
    error_reply,
    opt_record,
    read_query,
)
from toska_discovery.dns.zone import Answer, Group, Zone

PLAIN_UDP_BYTES = 512
"""Longest UDP answer for those who do not say that they take more (RFC 1035 §4.2.1)."""
MAX_UDP_BYTES = 4096
"""Longest UDP answer at all, so that a short query with a forged sender cannot have a long one sent elsewhere."""
MAX_TCP_BYTES = 65535
MAX_KEPT = 4096
"""Questions whose answers are kept; the one that was asked first goes first."""
_SMALLEST_RECORD_BYTES = 16
_OPT_BYTES = 11


@dataclass(slots=True)
class DnsCounts:
    """Answers given, by transport and code, for the metrics; packets that get none are under `dropped`."""

    answers: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    def add(self, transport: str, rcode: str) -> None:
        """Count one."""
        key = (transport, rcode)
        self.answers[key] = self.answers.get(key, 0) + 1


@dataclass(frozen=True, slots=True)
class Foreign:
    """A query about a name of others, for the recursors."""

    query: Query


class DnsServer:
    """Answers packets from a zone."""

    def __init__(self, zone: Zone, policy: DnsPolicy, counts: DnsCounts) -> None:
        self._zone = zone
        self._policy = policy
        self._random = random.Random()  # noqa: S311 - spreads callers over instances and guards nothing
        self._kept: dict[bytes, tuple[Query, Answer]] = {}
        self.counts = counts

    def reply(self, packet: bytes, *, udp: bool) -> bytes | Foreign | None:
        """The answer to a packet; none for what is no query, which an answer would only bounce back to."""
        transport = "udp" if udp else "tcp"
        if len(packet) < HEADER.size or packet[2] & 0x80:
            self.counts.add(transport, "dropped")
            return None
        reply = self._reply(packet, udp=udp)
        if not isinstance(reply, Foreign):
            self.counts.add(transport, Rcode(reply[3] & 0x0F).name)
        return reply

    def _reply(self, packet: bytes, *, udp: bool) -> bytes | Foreign:
        own_id, flags = packet[:2], int.from_bytes(packet[2:4])
        if flags & OPCODE_MASK:
            return error_reply(packet, Rcode.NOTIMP)
        tail = packet[2:]  # all but the id, so that the same question of the same kind of asker is not read again
        kept = self._kept.get(tail)
        if kept is not None and kept[1].index_now is not None and kept[1].index_now() == kept[1].index:
            return own_id + self._assemble(*kept, udp=udp)
        try:
            query = read_query(packet)
        except Malformed:
            return error_reply(packet, Rcode.FORMERR)
        answer = self._answer(query)
        if answer is None:
            return Foreign(query)
        self._keep(tail, query, answer)
        return own_id + self._assemble(query, answer, udp=udp)

    def _answer(self, query: Query) -> Answer | None:
        """What to answer; `None` leaves it to the recursors."""
        if query.edns_version:
            return Answer(Rcode.BADVERS)
        if query.rdclass not in {IN, ANY_CLASS} or query.rdtype in {Type.AXFR, Type.IXFR}:
            return Answer(Rcode.REFUSED)
        name = self._zone.read_name(query.labels)
        answer = self._zone.answer(name, query.rdtype)
        foreign = isinstance(name, ForeignName) or answer.rcode is Rcode.REFUSED
        return None if foreign and self._policy.recursors and query.flags & RD else answer

    def _keep(self, tail: bytes, query: Query, answer: Answer) -> None:
        self._kept.pop(tail, None)
        if answer.index_now is None:
            return  # names that nobody has are without number, and to say so costs nothing
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[tail] = (query, answer)

    def _assemble(self, query: Query, answer: Answer, *, udp: bool) -> bytes:
        """Everything but the id."""
        limit = _size_limit(query) if udp else MAX_TCP_BYTES
        base = HEADER.size + len(query.question)
        room = limit - base - (0 if query.udp_bytes is None else _OPT_BYTES)
        groups = self._draw(answer, room, limited=udp and limit == PLAIN_UDP_BYTES)
        told, body = _fit(groups, answer, base, room)
        flags = QR | query.flags & RD | answer.rcode & 0x0F
        if answer.rcode is not Rcode.REFUSED:
            flags |= AA
        if self._policy.recursors:
            flags |= RA
        wanted = 1 if answer.one_only else len(answer.groups)
        if told.groups < wanted and self._policy.truncate:
            flags |= TC
        additional = told.additional
        if query.udp_bytes is not None:
            body += opt_record(MAX_UDP_BYTES, answer.rcode)
            additional += 1
        counts = HEADER.pack(0, flags, 1, told.answers, len(answer.authority) if told.authority else 0, additional)
        return counts[2:] + query.question + body

    def _draw(self, answer: Answer, room: int, *, limited: bool) -> Sequence[Group]:
        """Groups in random order, no more than could fit."""
        groups = answer.groups
        most = min(len(groups), max(1, room // _SMALLEST_RECORD_BYTES))
        if answer.one_only:
            most = 1
        elif limited and self._policy.udp_answers:
            most = min(most, self._policy.udp_answers)
        if answer.in_order or len(groups) == 1:
            return groups[:most]
        return self._random.sample(groups, most)


@dataclass(slots=True)
class _Told:
    """What made it into an answer."""

    groups: int = 0
    answers: int = 0
    authority: bool = False
    additional: int = 0


def _size_limit(query: Query) -> int:
    return max(PLAIN_UDP_BYTES, min(query.udp_bytes or 0, MAX_UDP_BYTES))


def _fit(groups: Sequence[Group], answer: Answer, base: int, room: int) -> tuple[_Told, bytes]:
    """As many whole groups as fit into `room` bytes behind the first `base`, then the rest as far as it does."""
    told = _Told()
    answers: list[bytes] = []
    extras: list[bytes] = []
    metas: dict[bytes, None] = {}
    position = base
    for group in groups:
        owner = _owner(group, position) if group.extras else b""
        helped = [owner + extra for extra in group.extras]
        size = len(group.answers) + sum(map(len, helped))
        if size > room:
            break
        room -= size
        answers.append(group.answers)
        extras += helped
        position += len(group.answers)
        metas.update(dict.fromkeys(group.meta))
        told.groups += 1
        told.answers += group.count
    authority = b"".join(answer.authority)
    told.authority = len(authority) <= room
    if not told.authority:
        authority = b""
    room -= len(authority)
    for extra in (*answer.extras, *metas):
        if len(extra) <= room:
            extras.append(extra)
            room -= len(extra)
    told.additional = len(extras)
    return told, b"".join(answers) + authority + b"".join(extras)


def _owner(group: Group, position: int) -> bytes:
    """The name that a group's extras are about: a pointer to it, or in full where it is out of a pointer's reach."""
    offset = position + group.target
    return (0xC000 | offset).to_bytes(2) if offset < 0x4000 else group.answers[group.target :]
