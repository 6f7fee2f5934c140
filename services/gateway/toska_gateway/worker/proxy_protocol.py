"""The PROXY protocol, versions 1 and 2: who a load balancer speaks for. Pure.

`read_proxy_header` is given what a connection has brought so far. Nothing is guessed: whatever is not to the letter of
HAProxy's specification is refused, since what follows such a header would be taken for the client's word.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_PREFIX: Final = b"PROXY "
_V1_MAX: Final = 107
"""Bytes of the longest line of version 1, its CRLF included."""
V2_MAX: Final = 4096
"""Bytes that follow the fixed part of version 2: addresses take at most 216, and certificates in TLVs some more."""
_FIXED: Final = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0, 1
_ADDRESS_BYTES: Final = {0: 0, 1: 12, 2: 36, 3: 216}
"""By address family: unspecified, IPv4, IPv6, Unix."""
_UNSPECIFIED, _IPV4, _UNIX = 0, 1, 3
_STREAM: Final = 1
_TLV: Final = struct.Struct("!BH")
_CRC32C_TYPE: Final = 0x03


class BadProxyHeader(ValueError):
    """What stands in front is no PROXY header, or a broken one."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What the header said. Without a `client` the connection is the load balancer's own, or it does not know."""

    size: int
    client: str | None


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header in front of a connection; `None` if more bytes are needed to tell.

    Raises:
        BadProxyHeader: It is none.
    """
    if data[:12] == V2_SIGNATURE[: len(data)]:
        return _read_v2(data) if len(data) >= _FIXED.size else None
    if data[:6] == _V1_PREFIX[: len(data)]:
        return _read_v1(data)
    raise BadProxyHeader("no PROXY header in front of the connection")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(data) >= _V1_MAX or b"\n" in data:
            raise BadProxyHeader("version 1: the line has no end")
        return None
    size = end + 2
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(size, None)  # what follows on the line is to be ignored
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise BadProxyHeader("version 1: the line is not a protocol, two addresses and two ports")
    kind = IPv4Address if words[1] == b"TCP4" else IPv6Address
    client = _v1_address(words[2], kind)
    _v1_address(words[3], kind)
    for port in words[4:]:
        if not port.isdigit() or len(port) > 5 or int(port) > 65535 or (port[:1] == b"0" and port != b"0"):
            raise BadProxyHeader("version 1: a port is not one")
    return ProxyHeader(size, client)


def _v1_address(text: bytes, kind: type[IPv4Address] | type[IPv6Address]) -> str:
    try:
        address = kind(text.decode("ascii"))
    except ValueError:
        raise BadProxyHeader("version 1: an address is not one of its family") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise BadProxyHeader("version 1: an address has a zone")
    return _plain(address)


def _read_v2(data: bytes) -> ProxyHeader | None:
    _, version_command, family_protocol, length = _FIXED.unpack_from(data)
    version, command = version_command >> 4, version_command & 15
    family, protocol = family_protocol >> 4, family_protocol & 15
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise BadProxyHeader("version 2: unknown version or command")
    if length > V2_MAX:
        raise BadProxyHeader(f"version 2: more than {V2_MAX} bytes of addresses and extensions")
    if family not in _ADDRESS_BYTES or protocol > 2:
        raise BadProxyHeader("version 2: unknown address family or protocol")
    size = _FIXED.size + length
    if len(data) < size:
        return None
    if command == _LOCAL:
        # The rest is to be ignored, whatever it holds: the load balancer looks whether we are there.
        return ProxyHeader(size, None)
    if (family == _UNSPECIFIED) != (protocol == 0) or protocol not in (0, _STREAM):
        raise BadProxyHeader("version 2: not for a stream")
    start = _FIXED.size + _ADDRESS_BYTES[family]
    if start > size:
        raise BadProxyHeader("version 2: shorter than its addresses")
    if family != _UNSPECIFIED:
        _check_extensions(data, start, size)
    if family in (_UNSPECIFIED, _UNIX):
        return ProxyHeader(size, None)
    width = 4 if family == _IPV4 else 16
    return ProxyHeader(size, _plain(ip_address(data[_FIXED.size : _FIXED.size + width])))


def _check_extensions(data: bytes, start: int, end: int) -> None:
    at = start
    while at < end:
        if end - at < _TLV.size:
            raise BadProxyHeader("version 2: an extension is cut off")
        kind, length = _TLV.unpack_from(data, at)
        at += _TLV.size
        if at + length > end:
            raise BadProxyHeader("version 2: an extension is longer than the header")
        if kind == _CRC32C_TYPE:
            if length != 4:
                raise BadProxyHeader("version 2: a checksum has 4 bytes")
            blanked = data[:at] + bytes(4) + data[at + 4 : end]
            if crc32c(blanked) != int.from_bytes(data[at : at + 4], "big"):
                raise BadProxyHeader("version 2: the checksum is wrong")
        at += length


def _plain(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _crc_table() -> tuple[int, ...]:
    table: list[int] = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of some bytes."""
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _CRC_TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
