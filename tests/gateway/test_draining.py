"""Stopping workers: what is in flight is finished, and nobody who merely stays connected holds that up."""

import asyncio

from toska_tests.gateways import running_gateway
from toska_tests.waiting import unhindered_s, wait_until

HELLO = {"routes": [{"name": "all", "match": {"path_prefix": "/"}, "respond": {"body": "hello"}}]}


async def test_an_idle_connection_is_closed_cleanly_and_not_waited_for() -> None:
    async def at_once() -> bool:
        async with running_gateway(HELLO) as gateway:
            reader, writer = await asyncio.open_connection(*gateway.address)
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await reader.readuntil(b"hello")
            began = unhindered_s()
        took = unhindered_s() - began
        assert await reader.read() == b""  # the end, and no reset
        writer.close()
        return took < 1.0

    await wait_until(at_once, what="a gateway that stops at once")
