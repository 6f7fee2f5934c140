"""DNS packets: queries read strictly, and records in the form that answers are put together from.

Nothing here decides what to answer. An owner that is the name asked for is a pointer to the question, which stands at
the same place in every answer, so a record is encoded once and serves all that ask for it.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

HEADER = struct.Struct("!HHHHHH")
_QUESTION_TAIL = struct.Struct("!HH")
_RECORD_TAIL = struct.Struct("!HHIH")

QUESTION_POINTER = b"\xc0\x0c"
"""The name asked for, which follows the header at once."""
MAX_NAME_BYTES = 255
MAX_LABEL_BYTES = 63
MAX_TTL_S = 2**31 - 1
_TXT_PART_BYTES = 255
_RECORDS_MAX = 8
"""How many records a query may bring; EDNS and a signature are two."""

QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
OPCODE_MASK = 0x7800
IN, ANY_CLASS = 1, 255


class Type(IntEnum):
    """Types of record that the registry has, or that a query may bring."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


class Rcode(IntEnum):
    """What became of a query."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Malformed(Exception):
    """A packet that is no query as RFC 1035 §4.1 and RFC 6891 have it."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query with one question.

    Attributes:
        question: As it came: the name in its own mix of cases, type and class.
        labels: Of the name in lower case, the root aside.
        udp_bytes: Longest UDP answer that the asker takes, if it speaks EDNS.
        edns_version: The only one there is is 0.
    """

    flags: int
    question: bytes
    labels: tuple[bytes, ...]
    rdtype: int
    rdclass: int
    udp_bytes: int | None = None
    edns_version: int = 0


def read_query(packet: bytes) -> Query:
    """Read a query; its header is there and says that it is one.

    Raises:
        Malformed: It is none.
    """
    _, flags, questions, answers, authorities, additionals = HEADER.unpack_from(packet)
    if questions != 1 or answers or authorities or additionals > _RECORDS_MAX:
        raise Malformed
    labels, end = _read_name(packet, HEADER.size)
    if end + _QUESTION_TAIL.size > len(packet):
        raise Malformed
    rdtype, rdclass = _QUESTION_TAIL.unpack_from(packet, end)
    end += _QUESTION_TAIL.size
    size, version = _read_edns(packet, end, additionals)
    return Query(flags, packet[HEADER.size : end], labels, rdtype, rdclass, size, version)


def _read_name(packet: bytes, position: int) -> tuple[tuple[bytes, ...], int]:
    """A name without pointers: the first one of a packet has nothing to point to."""
    labels: list[bytes] = []
    start = position
    while True:
        if position >= len(packet):
            raise Malformed
        length = packet[position]
        position += 1
        if length == 0:
            break
        if length > MAX_LABEL_BYTES or position + length > len(packet):
            raise Malformed
        labels.append(packet[position : position + length].lower())
        position += length
    if position - start > MAX_NAME_BYTES:
        raise Malformed
    return tuple(labels), position


def _skip_name(packet: bytes, position: int) -> int:
    while position < len(packet):
        length = packet[position]
        if length == 0:
            return position + 1
        if length >= 0xC0:
            return position + 2
        if length > MAX_LABEL_BYTES:
            break
        position += 1 + length
    raise Malformed


def _read_edns(packet: bytes, position: int, count: int) -> tuple[int | None, int]:
    size, version = None, 0
    for _ in range(count):
        owner = position
        position = _skip_name(packet, position)
        if position + _RECORD_TAIL.size > len(packet):
            raise Malformed
        rdtype, rdclass, ttl, length = _RECORD_TAIL.unpack_from(packet, position)
        position += _RECORD_TAIL.size + length
        if position > len(packet):
            raise Malformed
        if rdtype == Type.OPT:
            if size is not None or packet[owner] != 0:
                raise Malformed
            size, version = rdclass, ttl >> 16 & 0xFF
    if position != len(packet):
        raise Malformed
    return size, version


def encode_name(name: str) -> bytes:
    """A name as it is written in packets.

    Raises:
        ValueError: It has no such form: an empty label, one that is too long, or too many.
    """
    text = name.removesuffix(".")
    if not text:
        return b"\x00"
    return encode_labels(tuple(label.encode() for label in text.split(".")))


def encode_labels(labels: tuple[bytes, ...]) -> bytes:
    """A name as it is written in packets, from its labels.

    Raises:
        ValueError: A label is empty or too long, or there are too many.
    """
    if not all(0 < len(label) <= MAX_LABEL_BYTES for label in labels):
        raise ValueError("a label must have between 1 and 63 bytes")
    encoded = b"".join(bytes((len(label),)) + label for label in labels) + b"\x00"
    if len(encoded) > MAX_NAME_BYTES:
        raise ValueError("a name must have at most 255 bytes")
    return encoded


def record(owner: bytes, rdtype: Type, ttl_s: int, rdata: bytes) -> bytes:
    """A record of the class IN."""
    return owner + _RECORD_TAIL.pack(rdtype, IN, ttl_s, len(rdata)) + rdata


def address_type(address: IPv4Address | IPv6Address) -> Type:
    """The type of record that an address goes into."""
    return Type.A if address.version == 4 else Type.AAAA


def text_rdata(text: str) -> bytes:
    """A text for a TXT record, in as many strings as it takes."""
    raw = text.encode()
    parts = [raw[start : start + _TXT_PART_BYTES] for start in range(0, len(raw), _TXT_PART_BYTES)] or [b""]
    return b"".join(bytes((len(part),)) + part for part in parts)


def opt_record(udp_bytes: int, rcode: int) -> bytes:
    """The EDNS record of an answer (RFC 6891 §6.1.2), with the upper half of its code."""
    return b"\x00" + _RECORD_TAIL.pack(Type.OPT, udp_bytes, rcode >> 4 << 24, 0)


def error_reply(packet: bytes, rcode: Rcode) -> bytes:
    """An answer of a header alone, for a query whose question could not be read."""
    own_id, flags = HEADER.unpack_from(packet)[:2]
    return HEADER.pack(own_id, QR | flags & (OPCODE_MASK | RD) | rcode, 0, 0, 0, 0)
