"""The first request: proof that what was started also answers."""

import anyio


async def wait_for_success(host: str, port: int, path: str, *, within: float) -> bool:
    """Whether `GET path` answers 200 within so many seconds; asks again until it does.

    A few bytes over a socket: an HTTP client would cost the start a quarter of a second of imports.
    """
    with anyio.move_on_after(within):
        while not await _answers_200(host, port, path):  # noqa: ASYNC110 - nobody tells us; asking is the point
            await anyio.sleep(0.02)
        return True
    return False


async def _answers_200(host: str, port: int, path: str) -> bool:
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        with anyio.fail_after(2):
            async with await anyio.connect_tcp(host, port) as stream:
                await stream.send(request.encode())
                return (await stream.receive(64)).startswith(b"HTTP/1.1 200 ")
    except (OSError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError):
        return False
