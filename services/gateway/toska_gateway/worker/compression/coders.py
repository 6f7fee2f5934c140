"""The content codings: one compressor for each body, fed in pieces.

Each piece is flushed, so that a client can decode all that the upstream has sent so far. Windows are small (256 KiB to
512 KiB): a compressor holds about 1 MiB, and a larger window gains under 1 % on what services answer.
"""

import zlib
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Protocol

_GZIP_WBITS = 31
_BR_WINDOW = 18
_ZSTD_WINDOW = 19


class Coder(Protocol):
    """Compresses one body."""

    def feed(self, payload: bytes) -> bytes:
        """Take the next bytes; what comes back may lag behind until `flush`."""
        ...

    def flush(self) -> bytes:
        """Everything that was fed and has not come back."""
        ...

    def finish(self) -> bytes:
        """The end of the coding."""
        ...


class Gzip:
    """RFC 1952."""

    __slots__ = ("_compressor",)

    def __init__(self, level: int) -> None:
        self._compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WBITS)

    def feed(self, payload: bytes) -> bytes:
        return self._compressor.compress(payload)

    def flush(self) -> bytes:
        return self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._compressor.flush()


class Brotli:
    """RFC 7932."""

    __slots__ = ("_compressor",)

    def __init__(self, brotli: Any, level: int) -> None:
        self._compressor = brotli.Compressor(quality=level, lgwin=_BR_WINDOW)

    def feed(self, payload: bytes) -> bytes:
        return self._compressor.process(payload)

    def flush(self) -> bytes:
        return self._compressor.flush()

    def finish(self) -> bytes:
        return self._compressor.finish()


class Zstd:
    """RFC 8878, within the window that RFC 9659 allows on the web."""

    __slots__ = ("_block", "_compressor")

    def __init__(self, zstandard: Any, parameters: Any) -> None:
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self._block = zstandard.COMPRESSOBJ_FLUSH_BLOCK

    def feed(self, payload: bytes) -> bytes:
        return self._compressor.compress(payload)

    def flush(self) -> bytes:
        return self._compressor.flush(self._block)

    def finish(self) -> bytes:
        return self._compressor.flush()


def coder_factory(algorithm: str, level: int) -> Callable[[], Coder]:
    """What makes the compressors of a route for `algorithm`; the library is loaded here.

    Raises:
        ValueError: It is not installed.
    """
    if algorithm == "gzip":
        return partial(Gzip, level)
    if algorithm == "br":
        return partial(Brotli, _load("brotli"), level)
    zstandard = _load("zstandard")
    return partial(Zstd, zstandard, zstandard.ZstdCompressionParameters.from_level(level, window_log=_ZSTD_WINDOW))


def _load(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise ValueError(f"compress: the package {package} is needed: {error}") from error
