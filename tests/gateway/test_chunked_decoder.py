"""Taking off the chunked coding, however the bytes arrive."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.http1 import BadMessage, ChunkedDecoder
from toska_tests.raw_http import chunks

NEXT = b"GET / HTTP/1.1\r\n"
BODY = chunks([b"hello", b"\r\n0\r\n\r\n", b"x" * 300], extension=b' ;a="b"', trailers=b"X-A: 1\r\nX-B:\r\n")
PAYLOAD = b"hello" + b"\r\n0\r\n\r\n" + b"x" * 300


def decode(pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    """Payload and what follows the body."""
    decoder = ChunkedDecoder()
    out = b""
    for number, piece in enumerate(pieces):
        out += decoder.feed(piece)
        if decoder.rest is not None:
            return out, decoder.rest + b"".join(pieces[number + 1 :])
    return out, None


def test_a_body_split_at_any_position_comes_out_the_same() -> None:
    whole = BODY + NEXT
    for at in range(len(whole) + 1):
        assert decode([whole[:at], whole[at:]]) == (PAYLOAD, NEXT)


def test_a_body_byte_by_byte_comes_out_the_same() -> None:
    assert decode([bytes([byte]) for byte in BODY + NEXT]) == (PAYLOAD, NEXT)


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    cuts=st.lists(st.integers(min_value=0, max_value=400), max_size=8),
    rest=st.binary(max_size=10),
)
def test_any_body_in_any_pieces_comes_out_whole(payloads: list[bytes], cuts: list[int], rest: bytes) -> None:
    whole = chunks(payloads) + rest
    edges = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    pieces = [whole[start:end] for start, end in pairwise(edges)]
    assert decode(pieces) == (b"".join(payloads), rest)


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"1\na\n0\n\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"2\r\na\r\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1\r\na\r0\r\n\r\n",
        b"1\r\na\r\n\r\n0\r\n\r\n",
        b"1;a\nb\r\na\r\n",
        b"1;a\rb\r\na\r\n",
        b"1;\x00\r\na\r\n",
        b"1 a\r\na\r\n",
        b"1000000000000000\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\n X: 1\r\n\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\nX: 1\n\r\n",
        b"0\r\nX: 1\r2\r\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\n\n",
        b"0\r\n\n",
        b"1;" + b"a" * 300 + b"\r\n",
        b"1" * 300,
        b"0\r\nX: " + b"a" * 20_000,
        b"0\r\n" + b"X: aaaaaaaaaaaaaaaa\r\n" * 1000 + b"\r\n",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_chunk_is_refused_however_it_arrives(body: bytes) -> None:
    with pytest.raises(BadMessage) as whole:
        decode([body])
    assert whole.value.status == 400
    with pytest.raises(BadMessage):
        decode([bytes([byte]) for byte in body])


def test_an_unfinished_body_is_neither_refused_nor_taken_for_whole() -> None:
    for at in range(len(BODY)):
        assert decode([BODY[:at]])[1] is None
