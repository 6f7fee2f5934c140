"""The PROXY protocol's header as bytes: every rule of it, and whatever bytes may come instead."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.proxy_protocol import (
    V2_MAX,
    V2_SIGNATURE,
    BadProxyHeader,
    ProxyHeader,
    crc32c,
    read_proxy_header,
)


def v2(content: bytes = b"", *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    """A header of version 2."""
    return V2_SIGNATURE + struct.pack("!BBH", command, family, len(content) if length is None else length) + content


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


IPV4 = ip_address("192.0.2.7").packed + ip_address("198.51.100.1").packed + struct.pack("!HH", 40000, 443)
IPV6 = ip_address("2001:db8::7").packed + ip_address("2001:db8::1").packed + struct.pack("!HH", 40000, 443)
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"


def checksummed(content: bytes) -> bytes:
    """Version 2 over IPv4 with a checksum as the last extension."""
    blank = v2(content + tlv(3, bytes(4)))
    return blank[:-4] + crc32c(blank).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (V1, "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n", "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 0 0\r\n", "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN whatever else stands here\r\n", None),
        (v2(IPV4), "192.0.2.7"),
        (v2(IPV6, family=0x21), "2001:db8::7"),
        (v2(IPV4 + tlv(0x02, b"shop.example") + tlv(0x04, b"")), "192.0.2.7"),
        (checksummed(IPV4 + tlv(0x05, b"unique")), "192.0.2.7"),
        (v2(bytes(216), family=0x31), None),
        (v2(family=0x00), None),
        (v2(b"ignored", family=0x00), None),
        (v2(command=0x20, family=0x00), None),
        (v2(b"\xff" * 20, command=0x20), None),
    ],
)
def test_a_header_is_read_with_what_follows_left_alone(header: bytes, client: str | None) -> None:
    expected = ProxyHeader(len(header), client)
    assert read_proxy_header(header + b"GET / HTTP/1.1\r\n") == expected
    for end in range(len(header)):
        assert read_proxy_header(header[:end]) is None, end
    assert read_proxy_header(header) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xff",
        b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY\tTCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
        b"PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 \xb2 2\r\n",
        b"PROXY TCP4 \xff.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"PROXY \r\n",
        v2(IPV4, command=0x11),
        v2(IPV4, command=0x22),
        v2(IPV4, family=0x41),
        v2(IPV4, family=0x12),
        v2(IPV4, family=0x13),
        v2(IPV4, family=0x10),
        v2(IPV4, family=0x01),
        v2(IPV4[:-1]),
        v2(IPV4, family=0x21),
        v2(length=V2_MAX + 1),
        v2(IPV4 + b"\x04"),
        v2(IPV4 + tlv(0x04, b"abc")[:-1]),
        v2(IPV4 + struct.pack("!BH", 0x04, 0xFFFF)),
        v2(IPV4 + tlv(0x03, b"abc")),
        v2(IPV4 + tlv(0x03, b"\x00\x00\x00\x00")),
        checksummed(IPV4)[:20] + b"\x00" + checksummed(IPV4)[21:],
    ],
)
def test_what_is_not_to_the_letter_is_refused(data: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        read_proxy_header(data)


def test_the_checksum_is_castagnoli_s() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


@given(
    st.binary(max_size=300)
    | st.binary(max_size=300).map(lambda data: V2_SIGNATURE + data)
    | st.binary(max_size=120).map(lambda data: b"PROXY " + data)
)
def test_any_bytes_are_a_header_or_refused_or_too_few(data: bytes) -> None:
    try:
        header = read_proxy_header(data)
    except BadProxyHeader:
        return
    if header is None:
        assert len(data) < 16 + V2_MAX
    else:
        assert 0 < header.size <= len(data)
        assert header.client is None or ip_address(header.client)
        assert read_proxy_header(data[: header.size]) == header


@given(
    st.ip_addresses(),
    st.integers(0, 65535),
    st.lists(st.tuples(st.integers(4, 255), st.binary(max_size=60)), max_size=5),
    st.booleans(),
)
def test_what_a_load_balancer_writes_is_read_back(
    address: object, port: int, extensions: list[tuple[int, bytes]], checksum: bool
) -> None:
    ip = ip_address(str(address))
    expected = str(getattr(ip, "ipv4_mapped", None) or ip)
    line = f"PROXY TCP{ip.version} {ip} {ip} {port} {port}\r\n".encode()
    assert read_proxy_header(line) == ProxyHeader(len(line), expected)
    content = ip.packed * 2 + struct.pack("!HH", port, port) + b"".join(tlv(*one) for one in extensions)
    content += tlv(3, bytes(4)) if checksum else b""
    header = v2(content, family=0x11 if ip.version == 4 else 0x21)
    if checksum:
        header = header[:-4] + crc32c(header).to_bytes(4, "big")
    assert read_proxy_header(header) == ProxyHeader(len(header), expected)
