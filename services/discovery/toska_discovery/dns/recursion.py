"""Names of others, handed on to the recursors that an operator names, over the transport they were asked by."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable

from toska_discovery.dns.server import DnsCounts
from toska_discovery.dns.wire import HEADER, QR, Rcode, error_reply

TIMEOUT_S = 2.0
"""How long each recursor may take."""
MAX_IN_FLIGHT = 256
"""Queries that recursors are asked at a time; more are told to ask again."""
_LENGTH_BYTES = 2

Reply = Callable[[bytes], None]


class Recursion:
    """Asks one recursor after the other until one answers.

    Args:
        counts: What became of the queries goes in there.
        start: Runs `function(*args)` as a task that has a parent.
    """

    def __init__(
        self,
        recursors: tuple[tuple[str, int], ...],
        counts: DnsCounts,
        start: Callable[[Callable[..., Awaitable[None]], bytes, Reply, bool], None],
    ) -> None:
        self._recursors = recursors
        self._counts = counts
        self._start = start
        self._in_flight = 0

    def ask(self, packet: bytes, reply: Reply, *, udp: bool) -> None:
        """Have `reply` called with the answer to `packet`."""
        if self._in_flight >= MAX_IN_FLIGHT:
            self._give(error_reply(packet, Rcode.SERVFAIL), reply, udp)
            return
        self._in_flight += 1
        self._start(self._ask_all, packet, reply, udp)

    async def _ask_all(self, packet: bytes, reply: Reply, udp: bool) -> None:
        try:
            self._give(await self._answer(packet, udp), reply, udp)
        finally:
            self._in_flight -= 1

    async def _answer(self, packet: bytes, udp: bool) -> bytes:
        # A fresh id and a fresh socket for each, so that nobody who does not see them can answer in their place.
        asked = secrets.token_bytes(2) + packet[2:]
        for address, port in self._recursors:
            with contextlib.suppress(OSError, EOFError):  # a timeout is an OSError
                async with asyncio.timeout(TIMEOUT_S):
                    answer = await (_ask_udp if udp else _ask_tcp)(address, port, asked)
                return packet[:2] + answer[2:]
        return error_reply(packet, Rcode.SERVFAIL)

    def _give(self, answer: bytes, reply: Reply, udp: bool) -> None:
        rcode = answer[3] & 0x0F
        self._counts.add("udp" if udp else "tcp", Rcode(rcode).name if rcode in set(Rcode) else "other")
        reply(answer)


class _Asked(asyncio.DatagramProtocol):
    """Waits for the answer to one packet."""

    def __init__(self, packet: bytes, answer: asyncio.Future[bytes]) -> None:
        self._packet = packet
        self._answer = answer

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if _answers(data, self._packet) and not self._answer.done():
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


async def _ask_udp(address: str, port: int, packet: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Asked(packet, answer), remote_addr=(address, port))
    try:
        transport.sendto(packet)
        return await answer
    finally:
        transport.close()


async def _ask_tcp(address: str, port: int, packet: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(len(packet).to_bytes(_LENGTH_BYTES) + packet)
        while True:
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(_LENGTH_BYTES)))
            if _answers(answer, packet):
                return answer
    finally:
        writer.close()


def _answers(answer: bytes, packet: bytes) -> bool:
    """Whether it is an answer, and to this very question."""
    if len(answer) < HEADER.size or answer[:2] != packet[:2] or not int.from_bytes(answer[2:4]) & QR:
        return False
    end = packet.index(b"\x00", HEADER.size) + 5
    return answer[HEADER.size : end].lower() == packet[HEADER.size : end].lower()
