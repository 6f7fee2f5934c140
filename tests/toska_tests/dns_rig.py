"""A DNS client for tests: bare questions over UDP and TCP, and a server to ask for names of others."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset

TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """An answer, in text."""

    message: dns.message.Message

    @property
    def rcode(self) -> str:
        """What became of the question."""
        return dns.rcode.to_text(self.message.rcode())

    @property
    def flags(self) -> set[str]:
        """Its flags."""
        return set(dns.flags.to_text(self.message.flags).split())

    @property
    def answers(self) -> list[str]:
        """`NAME TTL TYPE VALUE` of the answer section, sorted."""
        return _texts(self.message.answer)

    @property
    def values(self) -> list[str]:
        """Values of the answer section alone, sorted."""
        return sorted(self.told)

    @property
    def told(self) -> list[str]:
        """The same in the order of the answer."""
        return [str(item) for rrset in self.message.answer for item in _items(rrset)]

    @property
    def authority(self) -> list[str]:
        """The authority section, with every serial number as 0."""
        return [_without_serial(text) for text in _texts(self.message.authority)]

    @property
    def additional(self) -> list[str]:
        """The additional section, EDNS aside."""
        return _texts(self.message.additional)

    @property
    def size(self) -> int:
        """How many bytes it takes, in the tightest form."""
        return len(self.message.to_wire())


def _texts(section: Iterable[dns.rrset.RRset]) -> list[str]:
    return sorted(
        f"{rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {item}"
        for rrset in section
        for item in _items(rrset)
    )


def _items(rrset: dns.rrset.RRset) -> Iterable[dns.rdata.Rdata]:
    return cast("Iterable[dns.rdata.Rdata]", rrset)  # dnspython types it as an iterable of nothing known


def _without_serial(text: str) -> str:
    parts = text.split()
    if "SOA" in parts:
        parts[parts.index("SOA") + 3] = "0"
    return " ".join(parts)


def question(
    name: str, rdtype: str = "A", *, edns: int | None = None, number: int | None = None
) -> dns.message.QueryMessage:
    """A question, with EDNS if it says how many bytes it takes; its ID is drawn by lot unless there is a `number`."""
    if edns is None:
        return dns.message.make_query(name, rdtype, use_edns=False, id=number)
    return dns.message.make_query(name, rdtype, use_edns=0, payload=edns, id=number)


@dataclass(frozen=True, slots=True)
class DnsPort:
    """A DNS server on this machine; `kind` says whose."""

    kind: str
    port: int

    async def ask(self, name: str, rdtype: str = "A", *, tcp: bool = False, edns: int | None = None) -> DnsAnswer:
        """Ask it something."""
        send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return DnsAnswer(await send(question(name, rdtype, edns=edns), "127.0.0.1", port=self.port, timeout=TIMEOUT_S))

    async def exchange(self, packet: bytes, *, within: float = TIMEOUT_S) -> bytes | None:
        """Send a packet over UDP, and return the one that comes back within that time."""
        loop = asyncio.get_running_loop()
        came: asyncio.Future[bytes] = loop.create_future()

        class Asker(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                if not came.done():
                    came.set_result(data)

        transport, _ = await loop.create_datagram_endpoint(Asker, remote_addr=("127.0.0.1", self.port))
        try:
            transport.sendto(packet)
            async with asyncio.timeout(within):
                return await came
        except TimeoutError:
            return None
        finally:
            transport.close()


@asynccontextmanager
async def foreign_server(address: str) -> AsyncGenerator[int]:
    """A DNS server that says of every name that it is at `address`, on UDP and TCP; yields its port."""
    loop = asyncio.get_running_loop()

    def answer(packet: bytes) -> bytes:
        query = dns.message.from_wire(packet)
        reply = dns.message.make_response(query, recursion_available=True)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
        return reply.to_wire()

    class Udp(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.DatagramTransport", transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(answer(data), addr)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = answer(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
        writer.write(len(reply).to_bytes(2) + reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(Udp, local_addr=("127.0.0.1", port))
    try:
        yield port
    finally:
        transport.close()
        server.close()
