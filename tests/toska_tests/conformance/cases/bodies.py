"""Bodies both ways: whole, whatever frames them."""

from collections.abc import Sequence

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Announced, Ask, FirstBytes
from toska_tests.raw_http import Conversation, chunks, get, request, response

_LARGE = bytes(range(256)) * 4000
_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(method: str, pieces: Sequence[bytes]) -> bytes:
    """A request with a chunked body."""
    return request(method, "/", "Transfer-Encoding: chunked") + chunks(pieces)


async def until_closed(conversation: Conversation) -> None:
    """Answer with a body that ends with the connection."""
    await conversation.request()
    await conversation.send(b"HTTP/1.1 200 OK\r\n\r\n" + _LARGE[:70_000])


async def after_an_interim(conversation: Conversation) -> None:
    """Say something first."""
    await conversation.request()
    await conversation.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
    await conversation.send(response(200, body=b"done"))


async def an_event_at_a_time(conversation: Conversation) -> None:
    """Send the first event, and no other."""
    await conversation.request()
    await conversation.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
    await conversation.until_closed()


async def asking_for_the_body(conversation: Conversation) -> None:
    """Ask for a body that is announced."""
    while True:
        head = await conversation.request_head()
        await conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        head.body = await conversation.exactly(int(head.value("content-length") or b"0"))
        await conversation.send(response(200, body=b"ok"))


CASES: Sequence[Case] = (
    Case(
        "events arrive as they are sent",
        [FirstBytes(get(), b"data: 1\n\n")],
        upstreams={"a": an_event_at_a_time},
    ),
    Case(
        "a body that waits to be asked for is asked for",
        [
            Announced(b"POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n", b"hello"),
        ],
        upstreams={"a": asking_for_the_body},
    ),
    Case(
        "a request's body of known length arrives whole",
        [
            Ask(
                request("POST", body=b"hello"),
                takes=b"hello",
                sees={"content-length": b"5", "transfer-encoding": None},
            ),
            Ask(request("PUT", body=_LARGE), takes=_LARGE),
            Ask(request("POST", body=b""), takes=b"", sees={"content-length": b"0"}),
            Ask(get(), takes=b"", sees={"content-length": None, "transfer-encoding": None}),
        ],
    ),
    Case(
        "a request's chunked body arrives whole",
        [
            Ask(chunked("POST", [b"he", b"l", b"lo"]), takes=b"hello"),
            Ask(chunked("POST", [_LARGE[:1000], _LARGE[1000:]]), takes=_LARGE),
            Ask(chunked("POST", []), takes=b""),
            Ask(get(), takes=b""),
        ],
    ),
    Case(
        "a response of known length arrives whole",
        [Ask(get(), gets={"content-length": b"%d" % len(_LARGE)}, body=_LARGE)] * 2,
        upstreams={"a": response(200, body=_LARGE)},
    ),
    Case(
        "a chunked response arrives whole",
        [Ask(get(), body=_LARGE), Ask(get(), body=_LARGE)],
        upstreams={"a": _CHUNKED + chunks([_LARGE[:5], _LARGE[5:]])},
    ),
    Case(
        "a response that ends with its connection arrives whole",
        [Ask(get(), body=_LARGE[:70_000])] * 2,
        upstreams={"a": until_closed},
    ),
    Case(
        "the answer to a HEAD has the length and no body",
        [Ask(request("HEAD"), gets={"content-length": b"5"}, body=b""), Ask(request("HEAD"), body=b"")],
        upstreams={"a": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"},
    ),
    Case(
        "answers without a body end with their heads",
        [
            Ask(get("/1"), 204, body=b"", gets={"content-length": None}),
            Ask(get("/2"), 304, body=b"", gets={"etag": b'"a"'}),
            Ask(get("/1"), 204, body=b""),
        ],
        [{"name": "one", "match": {"path": "/1"}, "to": "a"}, {"name": "two", "match": {"path": "/2"}, "to": "b"}],
        upstreams={
            "a": b"HTTP/1.1 204 No Content\r\n\r\n",
            "b": b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\ncontent-length: 900\r\n\r\n',
        },
    ),
    Case(
        "an answer that is announced comes after its announcement",
        [Ask(get(), body=b"done")],
        upstreams={"a": after_an_interim},
    ),
    Case(
        "a body over the route's limit is refused, and one at it is not",
        [
            Ask(request("POST", body=b"x" * 1000), by="a"),
            Ask(request("POST", body=b"x" * 1001), 413, error="body-too-large", closes=True),
            Ask(chunked("POST", [b"x" * 500, b"x" * 500]), by="a"),
        ],
        policies(body={"max_bytes": 1000}),
    ),
)
