"""Servers that record what they are sent, and answer by a script."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

from toska_tests.raw_http.messages import OK
from toska_tests.raw_http.wire import LIMIT, CutOff, Message, Wire, open_socket


class Conversation(Wire):
    """An upstream's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: "Upstream") -> None:
        super().__init__(reader, writer)
        self._upstream = upstream
        self.requests: list[Message] = []

    async def request(self) -> Message:
        """Read a whole request.

        Raises:
            EOFError: The connection ended before its first byte.
            CutOff: It ended inside.
        """
        message = await self.request_head()
        coding, length = message.value("transfer-encoding"), message.value("content-length")
        assert coding in (None, b"chunked")
        assert coding is None or length is None, f"both framings: {message.head!r}"
        if coding:
            message.body = await self.chunked()
        elif length is not None:
            message.body = await self.exactly(int(length))
        return message

    async def request_head(self) -> Message:
        """Read a request's head; the body is left to the script."""
        message = await self.head()
        self.requests.append(message)
        self._upstream.requests.append(message)
        return message

    async def until_closed(self) -> None:
        """Wait until the other end has closed, in order or by a reset."""
        with contextlib.suppress(ConnectionError):
            while await self.some():
                pass


Script = Callable[[Conversation], Awaitable[None]]


async def resetting(conversation: Conversation) -> None:
    """Take a request, and break off."""
    await conversation.request()
    conversation.reset()


async def silent(conversation: Conversation) -> None:
    """Take a request, and never answer."""
    await conversation.request()
    await conversation.until_closed()


def answering(*answers: bytes) -> Script:
    """A script that gives these answers in turn, the last one for ever."""

    async def script(conversation: Conversation) -> None:
        given = 0
        while True:
            await conversation.request()
            await conversation.send(answers[min(given, len(answers) - 1)])
            given += 1

    return script


class Upstream:
    """A server that records every byte it is sent and answers by a script, which runs once for each connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.conversations: list[Conversation] = []
        self.requests: list[Message] = []
        self.address: tuple[str, int] = ("", 0)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.address[1]

    @property
    def received(self) -> bytes:
        """Every byte of every connection."""
        return b"".join(bytes(conversation.received) for conversation in self.conversations)

    async def open(self, port: int = 0, *, window: int = 0, tls: ssl.SSLContext | None = None, path: str = "") -> None:
        """Listen on a port of the loopback address, or on a path; `window` bounds what the kernel takes unread."""
        if path:
            self._server = await asyncio.start_unix_server(self._accept, path, limit=LIMIT, ssl=tls)
            return
        listener = open_socket(window)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=window or LIMIT, ssl=tls)
        self.address = self._server.sockets[0].getsockname()

    async def stop(self) -> None:
        """Die as a killed process does: stop listening, and reset every connection."""
        if self._server is not None:
            self._server.close()
        for conversation in self.conversations:
            conversation.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for conversation in self.conversations:
            await conversation.aclose()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def aclose(self) -> None:
        """Stop.

        Raises:
            Exception: What a script stumbled over.
        """
        await self.stop()
        if self._errors:
            raise self._errors[0]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        conversation = Conversation(reader, writer, self)
        self.conversations.append(conversation)
        try:
            await self.script(conversation)
            await conversation.until_sent()
        except (EOFError, ConnectionError, CutOff):
            pass  # the other end went away, which is for the test to judge
        except TimeoutError:
            pass  # a connection that stayed open and idle
        except asyncio.CancelledError:
            pass  # by `stop`; asyncio.streams complains of tasks that end so
        except Exception as error:  # noqa: BLE001 - raised again by whoever closes the upstream
            self._errors.append(error)
        finally:
            self._tasks.discard(task)
            await conversation.aclose()


@contextlib.asynccontextmanager
async def upstream(
    script: Script | bytes = OK,
    *,
    port: int = 0,
    window: int = 0,
    tls: ssl.SSLContext | None = None,
    path: str = "",
) -> AsyncGenerator[Upstream]:
    """An upstream with this script, or with one answer for everything."""
    server = Upstream(answering(script) if isinstance(script, bytes) else script)
    await server.open(port, window=window, tls=tls, path=path)
    try:
        yield server
    finally:
        await server.aclose()


@contextlib.contextmanager
def black_hole() -> Generator[int]:
    """A port to which a connection is neither made nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # a full queue: what comes after is not answered
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]
