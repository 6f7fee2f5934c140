"""Which TCP ports of this machine somebody listens on, as the kernel lists them: all of them in one go.

By `sock_diag` the kernel walks its listening sockets alone; `/proc/net/tcp`, where that is all there is, also has every
connection (measured with 2,000 of them: 0.4 ms against 36). A listener is in the list however slow its process is, also
while it is stopped, and while its accept queue is full.
Source: sock_diag(7), linux/inet_diag.h
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

Listener = tuple[bytes, int]
"""A packed address, of 4 bytes or of 16, and a port."""

Listing = Callable[[], frozenset[Listener]]
"""Lists who listens now.

Raises:
    OSError: The kernel does not say.
"""

_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")
_QUERY = struct.Struct("=BBBBI48x")
_FOUND = struct.Struct("!4xH2x16s")
_MAPPED = bytes(10) + b"\xff\xff"


def find_listing() -> Listing | None:
    """The best way that this machine offers; `None` if there is none, as on any but Linux."""
    if not sys.platform.startswith("linux"):
        return None
    for listing in (list_by_sock_diag, list_by_proc):
        try:
            listing()
        except OSError as error:
            log.info("listeners_not_listed", by=listing.__name__, reason=str(error))
        else:
            return listing
    return None


def list_by_sock_diag() -> frozenset[Listener]:
    """Ask the kernel over netlink."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as netlink:
        netlink.settimeout(1.0)  # the kernel answers in the call; this is against waiting for one that does not
        found = [*_dump(netlink, socket.AF_INET), *_dump(netlink, socket.AF_INET6)]
    return frozenset(found)


def _dump(netlink: socket.socket, family: int) -> Iterator[Listener]:
    query = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _TCP_LISTEN)
    netlink.send(_HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0) + query)
    size = 4 if family == socket.AF_INET else 16
    while True:
        data = netlink.recv(65536)
        offset = 0
        while offset < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                raise OSError(number, "the kernel lists no sockets")
            port, address = _FOUND.unpack_from(data, offset + _HEADER.size)
            yield unmapped(address[:size]), port
            offset += (length + 3) & ~3


def list_by_proc(folder: Path = Path("/proc/net")) -> frozenset[Listener]:
    """Read the kernel's tables."""
    found: set[Listener] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError) if name == "tcp6" else contextlib.nullcontext():
            for line in (folder / name).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split(None, 4)
                if fields[3] == "0A":
                    address, port = fields[1].split(":")
                    found.add((_from_hex(address), int(port, 16)))
    return frozenset(found)


def _from_hex(text: str) -> bytes:
    # Words of four bytes in the machine's own order.
    raw = bytes.fromhex(text)
    words = (raw[start : start + 4] for start in range(0, len(raw), 4))
    return unmapped(b"".join(word if sys.byteorder == "big" else word[::-1] for word in words))


def unmapped(address: bytes) -> bytes:
    """An IPv4 address in the clothes of an IPv6 one as what it is."""
    return address[12:] if address.startswith(_MAPPED) and len(address) == 16 else address
