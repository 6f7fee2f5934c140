"""Compressing responses on their way to the client (RFC 9110 §8.4)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from toska_common.contracts import Document
from toska_common.units import Size

Algorithm = Literal["br", "zstd", "gzip"]

MediaRange = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9][a-z0-9!#$&^_.-]{0,126}/(\*|(\*\+)?[a-z0-9][a-z0-9!#$&^_.+-]{0,126})$", to_lower=True
    ),
]
"""`text/html`, `text/*`, or `application/*+json` for every type with that suffix; without parameters."""

COMPRESSIBLE = (
    "text/html", "text/plain", "text/css", "text/csv", "text/xml", "text/markdown", "text/javascript", "text/calendar",
    "text/vtt", "text/x-component",
    "application/json", "application/*+json", "application/xml", "application/*+xml", "application/javascript",
    "application/x-javascript", "application/ndjson", "application/x-ndjson", "application/yaml", "application/toml",
    "application/graphql", "application/sql", "application/wasm", "application/rtf",
    "application/vnd.ms-fontobject", "font/ttf", "font/otf", "image/svg+xml", "image/bmp", "image/x-icon",
    "image/vnd.microsoft.icon",
)  # fmt: skip
"""What gets smaller, and is not compressed by itself. Event streams are left to those who name them."""


def _each_once(value: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
    if len(set(value)) != len(value):
        raise ValueError("an algorithm stands twice")
    return value


class CompressionLevels(Document):
    """How hard each algorithm tries.

    The bounds keep a piece of 64 KiB under 3 ms; higher levels hold up a worker's other requests for a few percent.
    """

    br: int = Field(default=4, ge=0, le=6)
    zstd: int = Field(default=3, ge=1, le=7)
    gzip: int = Field(default=4, ge=1, le=7)


class Compression(Document):
    """Compress responses for clients that take it.

    Off unless asked for: where an answer holds both a secret and what somebody else sent, its compressed length tells
    of the secret (BREACH).
    """

    algorithms: Annotated[tuple[Algorithm, ...], AfterValidator(_each_once)] = Field(
        default=("br", "zstd", "gzip"), min_length=1, description="Which, the one that is preferred first"
    )
    min_bytes: Size = Field(default=1024, ge=0, description="A body known to be smaller is left as it is")
    content_types: tuple[MediaRange, ...] = Field(
        default=COMPRESSIBLE, min_length=1, description="Of which types: text/html, text/*, application/*+json"
    )
    levels: CompressionLevels = CompressionLevels()
