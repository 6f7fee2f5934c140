"""Any bytes through the whole gateway: what the other side reads is what was meant, or there is a refusal.

Proper messages are damaged and cut into pieces anywhere. What was meant is what h11 makes of the same bytes; we may be
stricter, and never of another mind. `TOSKA_FUZZ_EXAMPLES` runs more than the suite does.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncGenerator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toska_tests.gateways import plane_here, single
from toska_tests.http_reference import Meaning, requests_in, response_in
from toska_tests.http_strategies import CUTS, cut, damaged, request_bytes, response_bytes
from toska_tests.raw_http import OK, Client, Conversation, CutOff, Upstream, connected, get, request, upstream

EXAMPLES = int(os.environ.get("TOSKA_FUZZ_EXAMPLES", "150"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="TOSKA_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LIMITS = {"header_timeout": "2s", "body_timeout": "2s", "idle_timeout": "2s"}
POLICIES = {"escaped_slashes": "keep", "retry": {"attempts": 1}}


class Recorder:
    """An upstream that keeps the bytes of whole requests only, and answers as it is told."""

    def __init__(self) -> None:
        self.whole: list[bytes] = []
        self.answers: list[bytes] = []
        self.closing = False

    async def __call__(self, conversation: Conversation) -> None:
        while True:
            conversation.received.clear()
            try:
                await conversation.request()
            finally:
                begun = bytes(conversation.received)
            self.whole.append(begun)
            for piece in self.answers or [OK]:
                await conversation.send(piece)
                await asyncio.sleep(0)
            if self.answers and self.closing:
                return


@pytest.fixture(scope="module")
async def rig() -> AsyncGenerator[tuple[Recorder, Upstream, tuple[str, int]]]:
    """A recording upstream behind a data plane, with the latter's address."""
    recorder = Recorder()
    async with upstream(recorder) as app:
        document = single(app.port, limits=LIMITS, policies=POLICIES)
        about = {"name": "about", "match": {"path": "*"}, "to": "app", "policies": POLICIES}
        document["routes"].append(about)
        async with plane_here(document) as (_, address):
            yield recorder, app, address


async def send_in_pieces(client: Client, pieces: list[bytes]) -> None:
    """Send, giving the other side time to see each piece by itself."""
    for piece in pieces:
        client.post(piece)
        for _ in range(3):
            await asyncio.sleep(0)


async def everything_from(client: Client) -> bytes:
    """All that comes until the other side closes, or breaks off."""
    with contextlib.suppress(ConnectionError):
        await client.to_end()
    return bytes(client.received)


@FUZZ
@given(data=damaged(request_bytes(), most=4), cuts=CUTS)
async def test_what_an_upstream_reads_is_what_the_client_meant_or_there_is_a_refusal(
    rig: tuple[Recorder, Upstream, tuple[str, int]], data: bytes, cuts: list[int]
) -> None:
    recorder, _, address = rig
    recorder.answers, recorder.whole = [], []
    async with connected(address) as client:
        await send_in_pieces(client, cut(data, cuts))
        with contextlib.suppress(OSError):
            client.end_writing()
        answers = await everything_from(client)
    meant = list(requests_in(data))
    read = [meaning for one in recorder.whole for meaning in requests_in(one)]
    assert len(read) == len(recorder.whole), "a forwarded request means one request to everybody"
    assert read == meant[: len(read)]
    assert answers.count(b"HTTP/1.1 200 OK") <= len(read)
    if len(read) < len(meant) and answers:
        # Something that h11 takes was refused: then it was said so, and nothing came after it.
        last = re.split(rb"(?=HTTP/1\.1 [0-9]{3} )", answers)[-1]
        assert b"x-toska-error" in last or b"connection: close" in last or b"101 " in last


@FUZZ
@given(
    data=damaged(response_bytes(), most=2),
    cuts=CUTS,
    method=st.sampled_from(["GET", "GET", "HEAD"]),
    closing=st.booleans(),
)
async def test_what_a_client_reads_is_what_the_upstream_meant_or_there_is_a_refusal(
    rig: tuple[Recorder, Upstream, tuple[str, int]], data: bytes, cuts: list[int], method: str, *, closing: bool
) -> None:
    recorder, app, address = rig
    recorder.answers, recorder.closing = cut(data, cuts), closing
    meant = response_in(data, method, closed=closing)
    async with connected(address) as client:
        seen = await whole_response(client, method)
        if seen is not None:
            assert seen == meant
    recorder.answers, recorder.closing = [], False
    await asyncio.sleep(0)
    async with connected(address) as client:
        # Whatever that left behind, the next one is not given it.
        assert (await client.ask(get())).body == b"ok"
    for conversation in app.conversations:
        conversation.reset()
    app.conversations.clear()


async def whole_response(client: Client, method: str) -> Meaning | None:
    """The response, unless it is cut off or the gateway's own."""
    try:
        async with asyncio.timeout(0.15):
            answer = await client.ask(request(method), to=method)
    except (CutOff, EOFError, ConnectionError, TimeoutError):
        return None
    if answer.error is not None:
        return None
    return response_in(bytes(client.received), method, closed=False)
