"""The channel between parent and worker: whole messages out of any pieces."""

import asyncio
import json
import socket
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.control import MAX_MESSAGE, ControlChannel, encode
from toska_tests.waiting import wait_until

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def received(pieces: list[bytes]) -> list[dict[str, Any]]:
    """The messages that come out of a channel."""

    async def receive() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        channel = ControlChannel(found.append, lambda: None)
        for piece in pieces:
            channel.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(20):  # more turns than there are messages
            await asyncio.sleep(0)
        return found

    return asyncio.run(receive())


def test_of_many_messages_in_one_read_each_waits_for_its_turn_of_the_loop() -> None:
    async def receive() -> None:
        found: list[dict[str, Any]] = []
        channel = ControlChannel(found.append, lambda: None)
        channel.data_received(b"".join(encode({"op": str(number)}) for number in range(5)))
        for count in range(1, 6):
            assert len(found) == count
            await asyncio.sleep(0)
        channel.data_received(encode({"op": "5"}))
        assert [message["op"] for message in found] == ["0", "1", "2", "3", "4", "5"]

    asyncio.run(receive())


@pytest.mark.parametrize("before", [0, 2])
async def test_an_error_in_taking_a_message_ends_the_channel(before: int) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()
    taken: list[str] = []

    def take(message: dict[str, Any]) -> None:
        taken.append(message["op"])
        if message["op"] == "bad":
            raise KeyError("bad")

    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    try:
        with theirs:
            await loop.create_connection(lambda: ControlChannel(take, lost.set), sock=ours)
            theirs.sendall(b"".join(encode({"op": op}) for op in [*["good"] * before, "bad"]))
            await asyncio.wait_for(lost.wait(), 5)
    finally:
        loop.set_exception_handler(None)
    assert taken[-1] == "bad"
    assert len(problems) == 1


@given(contents=st.lists(JSON, max_size=5), cuts=st.lists(st.integers(min_value=0, max_value=300), max_size=6))
def test_messages_come_out_as_they_went_in_however_they_are_cut(contents: list[Any], cuts: list[int]) -> None:
    messages = [{"op": "x", "content": content} for content in contents]
    whole = b"".join(encode(message) for message in messages)
    edges = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    assert received([whole[start:end] for start, end in pairwise(edges)]) == messages


def test_messages_come_out_byte_by_byte() -> None:
    whole = encode({"op": "a"}) + encode({"op": "é"})
    assert received([bytes([byte]) for byte in whole]) == [{"op": "a"}, {"op": "é"}]


def test_a_message_that_is_no_json_or_too_large_is_an_error() -> None:
    with pytest.raises(json.JSONDecodeError):
        received([struct.pack("!I", 1) + b"{"])
    with pytest.raises(ValueError, match="control message"):
        received([struct.pack("!I", MAX_MESSAGE + 1)])


async def test_both_ends_speak_and_learn_when_the_other_is_gone() -> None:
    ours, theirs = socket.socketpair()
    here: list[dict[str, Any]] = []
    there: list[dict[str, Any]] = []
    lost: list[str] = []
    one = ControlChannel(here.append, lambda: lost.append("one"))
    other = ControlChannel(there.append, lambda: lost.append("other"))
    loop = asyncio.get_running_loop()
    for end, channel in ((ours, one), (theirs, other)):
        end.setblocking(False)
        await loop.create_connection(lambda channel=channel: channel, sock=end)
    one.send({"op": "big", "content": "x" * 1_000_000})
    other.send({"op": "small"})
    await wait_until(lambda: bool(here and there))
    assert here == [{"op": "small"}]
    assert len(there[0]["content"]) == 1_000_000
    other.close()
    await wait_until(lambda: len(lost) == 2)
    one.send({"op": "late"})
