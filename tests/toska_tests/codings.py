"""Content codings undone by the libraries' own decoders."""

import zlib
from importlib import import_module
from typing import Any

CODINGS = ("br", "zstd", "gzip")


class Decoder:
    """Takes a coded body in pieces, and knows when it has come to its end."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._decoder: Any
        if coding == "gzip":
            self._decoder = zlib.decompressobj(31)
        elif coding == "br":
            self._decoder = import_module("brotli").Decompressor()
        else:
            self._decoder = import_module("zstandard").ZstdDecompressor().decompressobj()

    def feed(self, coded: bytes) -> bytes:
        """All that these bytes let be decoded."""
        if self._coding != "br":
            return self._decoder.decompress(coded)
        found: bytes = self._decoder.process(coded)
        while more := self._decoder.process(b""):  # it gives out a block at a time
            found += more
        return found

    @property
    def ended(self) -> bool:
        """Whether the body is complete."""
        return self._decoder.is_finished() if self._coding == "br" else self._decoder.eof


def decode(coding: str, coded: bytes) -> bytes:
    """What a whole coded body was.

    Raises:
        AssertionError: It is not whole.
    """
    decoder = Decoder(coding)
    found = decoder.feed(coded)
    assert decoder.ended, "the coded body has no end"
    return found
