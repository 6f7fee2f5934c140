"""Payloads made smaller, and closed to the broker: compression, then AES-256-GCM. The attributes stay readable.

An event says what was done to its data by two extension attributes: `datacompression` (`zstd` or `gzip`, as HTTP calls
codings) and `dataencryption` (`aes256gcm:KEY-NAME`). What encrypts binds the event's identity (source, id, topic and
compression) as associated data, so a payload cannot be moved to another event. Nonces are random: by NIST SP 800-38D
§8.3 a key is good for 2^32 events, so name a new key long before; old ones stay in the ring for what is still kept.
"""

import gzip
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from toska_common.errors import ConfigurationError
from toska_common.events.errors import EventTooLarge, InvalidPayload
from toska_common.events.event import Event

COMPRESSION, ENCRYPTION = "datacompression", "dataencryption"
_CIPHER = "aes256gcm"
_NONCE_BYTES = 12
_ZSTD_WINDOW_BYTES = 32 << 20

Compression = Literal["gzip", "zstd"]


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys by name, of 32 bytes each; `current` is used for what is published.

    Raises:
        ConfigurationError: A key is not 32 bytes long, or there is no current one.
    """

    current: str
    keys: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if self.current not in self.keys:
            raise ConfigurationError(f"events: there is no key named {self.current!r} to encrypt with")
        for name, key in self.keys.items():
            if len(key) != 32:
                raise ConfigurationError(f"events: the key {name!r} has {len(key)} bytes; AES-256 takes 32")


@dataclass(frozen=True, slots=True)
class Codec:
    """What is done to payloads on their way out, and undone on their way in.

    Attributes:
        compression: For payloads of `compress_from_bytes` and more, where it makes them smaller.
        max_bytes: No payload is unpacked beyond this: a few bytes could stand for gigabytes.
    """

    compression: Compression | None = None
    compress_from_bytes: int = 1024
    keys: KeyRing | None = None
    max_bytes: int = 16 << 20

    def encode(self, event: Event) -> Event:
        """The event as it travels."""
        if self.compression is not None and len(event.data) >= self.compress_from_bytes:
            packed = _compress(self.compression, event.data)
            if len(packed) < len(event.data):
                event = replace(event, data=packed, attributes={**event.attributes, COMPRESSION: self.compression})
        return event if self.keys is None else _encrypt(event, self.keys)

    def decode(self, event: Event) -> Event:
        """The event as it was published, whatever this codec does to its own.

        Raises:
            InvalidPayload: It was encrypted with a key that is not here, tampered with, or is not what it says it is.
        """
        if ENCRYPTION in event.attributes:
            event = self._decrypt(event)
        compression = event.attributes.get(COMPRESSION)
        if compression is None:
            return event
        return replace(event, data=self._decompress(compression, event.data), attributes=_without(event, COMPRESSION))

    def _decrypt(self, event: Event) -> Event:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        cipher, _, name = event.attributes[ENCRYPTION].partition(":")
        key = self.keys.keys.get(name) if self.keys is not None else None
        if cipher != _CIPHER or key is None:
            raise _refused(f"it is encrypted with {event.attributes[ENCRYPTION][:80]!r}, and that key is not here")
        try:
            data = AESGCM(key).decrypt(event.data[:_NONCE_BYTES], event.data[_NONCE_BYTES:], _identity(event))
        except (InvalidTag, ValueError) as error:
            raise _refused(f"it was changed since it was encrypted with the key {name!r}") from error
        return replace(event, data=data, attributes=_without(event, ENCRYPTION))

    def _decompress(self, compression: str, data: bytes) -> bytes:
        try:
            return _decompress(compression, data, self.max_bytes)
        except _Bomb as error:
            raise EventTooLarge(f"its data unpack to more than {self.max_bytes} bytes") from error
        except (ValueError, OSError, EOFError, zlib.error) as error:
            raise _refused(f"it is not {compression[:20]}") from error


class _Bomb(Exception):
    pass


def _encrypt(event: Event, ring: KeyRing) -> Event:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    sealed = nonce + AESGCM(ring.keys[ring.current]).encrypt(nonce, event.data, _identity(event))
    return replace(event, data=sealed, attributes={**event.attributes, ENCRYPTION: f"{_CIPHER}:{ring.current}"})


def _identity(event: Event) -> bytes:
    parts = (event.source, event.id, event.topic, event.attributes.get(COMPRESSION, ""))
    return b"".join(len(raw).to_bytes(4) + raw for raw in (part.encode() for part in parts))


def _without(event: Event, attribute: str) -> dict[str, str]:
    return {name: value for name, value in event.attributes.items() if name != attribute}


def _compress(compression: Compression, data: bytes) -> bytes:
    if compression == "gzip":
        return gzip.compress(data, 6, mtime=0)
    import zstandard

    return zstandard.ZstdCompressor(level=3).compress(data)


def _decompress(compression: str, data: bytes, most: int) -> bytes:
    if compression == "gzip":
        unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
        found = unpacking.decompress(data, most + 1)
        if len(found) > most:
            raise _Bomb
        if not unpacking.eof:
            raise ValueError("cut short")
        return found
    if compression != "zstd":
        raise ValueError("unknown")
    import zstandard

    try:
        said = zstandard.get_frame_parameters(data).content_size
        unpacking = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        with unpacking.stream_reader(data, read_across_frames=False) as reader:
            found = reader.read(most + 1)
    except zstandard.ZstdError as error:
        raise ValueError("broken") from error
    if len(found) > most:
        raise _Bomb
    if said not in (zstandard.CONTENTSIZE_UNKNOWN, len(found)):
        raise ValueError("cut short")
    return found


def _refused(reason: str) -> InvalidPayload:
    return InvalidPayload(f"the payload cannot be read: {reason}", problems=[{"field": "data", "reason": reason}])
