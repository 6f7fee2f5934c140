"""Connections that go where the rules allow, however an address is written."""

import aiohttp
import pytest
from aiohttp import web
from toska_common.clients.guarded import guarded_connector
from toska_common.targets import LOOPBACK, TargetRules
from toska_tests.control import web_server

SPELLINGS = (
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
)


async def _hello(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


async def test_an_address_is_refused_however_it_is_written() -> None:
    rules = TargetRules(networks=LOOPBACK)
    async with web_server(_hello) as port, aiohttp.ClientSession(connector=guarded_connector(lambda: rules)) as session:
        for host in SPELLINGS:
            # The second is aiohttp's own, of addresses that are not written out.
            with pytest.raises((aiohttp.ClientConnectorError, aiohttp.InvalidUrlClientError)):
                await session.get(f"http://{host}:{port}/")
        rules = TargetRules()
        async with session.get(f"http://127.0.0.1:{port}/") as answer:
            assert await answer.text() == "hello"
