"""What a client takes, read from Accept-Encoding, and bodies that are the same after coding, however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.compression.coders import coder_factory
from toska_gateway.worker.compression.negotiation import Negotiator, read_accept_encoding
from toska_gateway.worker.compression.policy import Compressing
from toska_tests.codings import CODINGS, Decoder

ALGORITHMS = pytest.mark.parametrize("algorithm", CODINGS)
LEVELS = {"br": 4, "zstd": 3, "gzip": 4}


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, br, zstd", "br"),  # equal weights: the server's order
        ("gzip;q=1.0, br;q=0.9", "gzip"),
        ("gzip ; q=0.5 ,br ; Q=0.6", "br"),
        ("br;q=0, *", "zstd"),
        ("*", "br"),
        ("*;q=0.1, gzip;q=0.2", "gzip"),
        ("*;q=0", None),
        ("*;q=0, gzip", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("gzip;q=0.001", "gzip"),
        ("identity", None),
        ("identity, gzip;q=0.5", None),  # it says that it prefers it as it is
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("deflate, compress", None),
        ("", None),
        (",, ,gzip", "gzip"),
        ("gzip;q=1.5", None),
        ("gzip;q=-1", None),
        ("gzip;q=0.1234", None),
        ("gzip;level=9", None),
        ("gzip;q=2, *", "br"),
        ("gzip;q=nan, *;q=0.5, br;q=0", "zstd"),
        ("\xff\xfe, gzip", "gzip"),
        ("gzipbr", None),
        ("gzip, gzip;q=0", "gzip"),
    ],
)
def test_the_coding_is_the_one_the_client_likes_best_and_then_the_server(accept: str, chosen: str | None) -> None:
    assert Negotiator(CODINGS).choose(accept.encode("latin-1")).coding == chosen


def test_a_client_that_sends_no_accept_encoding_gets_none() -> None:
    assert Negotiator(CODINGS).choose(None) == (None, False)


@pytest.mark.parametrize(
    ("accept", "required"),
    [
        ("gzip", False),
        ("gzip, identity;q=0", True),
        ("gzip, *;q=0", True),
        ("gzip, *;q=0, identity;q=0.1", False),
        ("identity;q=0.1, gzip", False),
    ],
)
def test_a_refusal_of_identity_is_seen(accept: str, required: bool) -> None:
    assert Negotiator(CODINGS).choose(accept.encode()).required is required


def test_what_is_offered_alone_can_be_chosen() -> None:
    assert Negotiator(["gzip"]).choose(b"br, zstd, gzip;q=0.1").coding == "gzip"
    assert Negotiator(["gzip"]).choose(b"br, zstd").coding is None


@given(st.binary(max_size=200))
def test_no_bytes_make_reading_fail_and_weights_are_weights(value: bytes) -> None:
    assert all(0 <= weight <= 1 for weight in read_accept_encoding(value).values())


@given(st.lists(st.text(alphabet="abcgzipbr*;q=01. ", max_size=30), min_size=1, max_size=400))
def test_what_was_chosen_before_is_chosen_again(values: list[str]) -> None:
    remembering = Negotiator(CODINGS)
    for value in (*values, *values):
        assert remembering.choose(value.encode()) == Negotiator(CODINGS).choose(value.encode())


def compressing(algorithm: str, length: int) -> Compressing:
    return Compressing(coder_factory(algorithm, LEVELS[algorithm])(), length)


PIECES = st.lists(
    st.one_of(
        st.tuples(st.binary(min_size=1, max_size=300), st.just(1)), st.tuples(st.just(b"a<b"), st.integers(1, 50_000))
    )
)
"""Each a text and how often it is repeated."""


@ALGORITHMS
@given(PIECES, st.booleans())
def test_every_cut_of_a_body_decodes_to_the_body_and_nothing_is_held_back(
    algorithm: str, cut: list[tuple[bytes, int]], known: bool
) -> None:
    pieces = [text * times for text, times in cut]
    stage = compressing(algorithm, sum(map(len, pieces)) if known else -1)
    decoder = Decoder(algorithm)
    found = b""
    for index, piece in enumerate(pieces):
        decoded = decoder.feed(stage.feed(piece))
        found += decoded
        if not known or index < len(pieces) - 1:
            assert decoded == piece  # a client has all that has been fed, without waiting for the end
    assert not decoder.ended
    found += decoder.feed(stage.finish())
    assert found == b"".join(pieces)
    assert decoder.ended


@ALGORITHMS
def test_a_body_whose_length_is_known_is_no_longer_than_if_it_were_coded_in_one_go(algorithm: str) -> None:
    body = b"the same words again and again " * 100
    stage = compressing(algorithm, len(body))
    coded = stage.feed(body) + stage.finish()
    coder = coder_factory(algorithm, LEVELS[algorithm])()
    assert coded == coder.feed(body) + coder.finish()
    assert len(coded) < len(body) / 10
