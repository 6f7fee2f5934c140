"""The first request: proof that what was started also answers."""

from urllib.parse import urlsplit

import anyio


async def wait_for_success(url: str) -> None:
    """Ask `url` again and again until it answers 200; the caller says for how long.

    A few bytes over a socket: an HTTP client would cost the start a quarter of a second of imports.
    """
    while not await _answers_200(url):  # noqa: ASYNC110 - nobody tells us; asking is the point
        await anyio.sleep(0.02)


async def _answers_200(url: str) -> bool:
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        with anyio.fail_after(2):
            async with await anyio.connect_tcp(parts.hostname or "", parts.port or 80) as stream:
                await stream.send(request.encode())
                return (await stream.receive(64)).startswith(b"HTTP/1.1 200 ")
    except (OSError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError):
        return False
