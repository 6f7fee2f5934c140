"""Payloads compressed and encrypted: what went in comes out, and nothing else does."""

import gzip
import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from toska_common.errors import ConfigurationError
from toska_common.events.codecs import COMPRESSION, ENCRYPTION, Codec, Compression, KeyRing
from toska_common.events.errors import EventTooLarge, InvalidPayload
from toska_common.events.event import Event

LONG = b'{"text": "' + b"again and " * 1000 + b'"}'
EVENT = Event(topic="a.b", source="/s", id="1", time=datetime(2026, 1, 1, tzinfo=UTC), data=LONG)
RING = KeyRing("2026", {"2026": os.urandom(32), "2025": os.urandom(32)})


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("keys", [None, RING], ids=["open", "closed"])
def test_an_event_comes_out_as_it_went_in(compression: Compression, keys: KeyRing | None) -> None:
    codec = Codec(compression=compression, keys=keys)
    sent = codec.encode(EVENT)
    assert len(sent.data) < len(LONG) / 5
    assert keys is None or b"again" not in sent.data
    assert codec.decode(sent) == EVENT


def test_a_reader_undoes_what_its_own_events_do_not_need() -> None:
    assert Codec().decode(Codec(compression="zstd").encode(EVENT)) == EVENT
    assert Codec().encode(EVENT) is EVENT


def test_what_is_small_or_does_not_shrink_is_left_alone() -> None:
    small, noise = replace(EVENT, data=b"{}"), replace(EVENT, data=os.urandom(5000))
    codec = Codec(compression="gzip")
    assert codec.encode(small) is small
    assert codec.encode(noise) is noise


def test_events_of_older_keys_are_read_and_new_ones_use_the_current_key() -> None:
    old = Codec(keys=KeyRing("2025", RING.keys)).encode(EVENT)
    assert old.attributes[ENCRYPTION] == "aes256gcm:2025"
    assert Codec(keys=RING).decode(old) == EVENT
    assert Codec(keys=RING).encode(EVENT).attributes[ENCRYPTION] == "aes256gcm:2026"


@pytest.mark.parametrize("change", [{"id": "2"}, {"source": "/t"}, {"topic": "a.c"}])
def test_a_payload_cannot_be_moved_to_another_event(change: dict[str, str]) -> None:
    sent = Codec(keys=RING).encode(EVENT)
    with pytest.raises(InvalidPayload, match="was changed"):
        Codec(keys=RING).decode(replace(sent, **change))


def test_what_was_tampered_with_is_refused() -> None:
    sent = Codec(keys=RING).encode(EVENT)
    with pytest.raises(InvalidPayload, match="was changed"):
        Codec(keys=RING).decode(replace(sent, data=sent.data[:-1] + bytes([sent.data[-1] ^ 1])))
    with pytest.raises(InvalidPayload, match="was changed"):
        Codec(keys=RING).decode(replace(sent, data=b""))
    with pytest.raises(InvalidPayload, match="not here"):
        Codec().decode(sent)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_few_bytes_do_not_unpack_to_gigabytes(compression: Compression) -> None:
    sent = Codec(compression=compression).encode(replace(EVENT, data=bytes(1 << 20)))
    assert len(sent.data) < 5000
    with pytest.raises(EventTooLarge):
        Codec(max_bytes=1 << 16).decode(sent)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "lzma"])
def test_what_is_not_what_it_says_is_refused(compression: str) -> None:
    for data in (b"", b"nonsense", gzip.compress(LONG)[:-20]):
        with pytest.raises(InvalidPayload, match="is not"):
            Codec().decode(replace(EVENT, data=data, attributes={COMPRESSION: compression}))


def test_a_frame_cut_short_is_refused() -> None:
    sent = Codec(compression="zstd").encode(replace(EVENT, data=os.urandom(100) * 2000))
    with pytest.raises(InvalidPayload, match="is not zstd"):
        Codec().decode(replace(sent, data=sent.data[: len(sent.data) // 2]))


def test_a_key_ring_shows_no_keys_and_takes_none_of_the_wrong_length() -> None:
    assert "keys" not in repr(RING)
    with pytest.raises(ConfigurationError, match="31 bytes"):
        KeyRing("a", {"a": bytes(31)})
    with pytest.raises(ConfigurationError, match="no key named 'b'"):
        KeyRing("b", {"a": bytes(32)})
