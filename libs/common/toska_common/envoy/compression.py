"""Compressed responses: one filter for each algorithm in each way it is asked for, which only those routes turn on."""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from toska_common.contracts.routing import Compression, RouteTable
from toska_common.envoy.words import Json, extension, typed

_KIND: Final = ".filters.http.compressor.v3."
_SUFFIX_TYPES: Final = {
    "application/*+json": (
        "application/activity+json", "application/fhir+json", "application/geo+json", "application/hal+json",
        "application/ld+json", "application/manifest+json", "application/merge-patch+json",
        "application/problem+json", "application/schema+json", "application/vnd.api+json",
    ),
    "application/*+xml": (
        "application/atom+xml", "application/problem+xml", "application/rss+xml", "application/soap+xml",
        "application/xhtml+xml",
    ),
}  # fmt: skip
"""What ranges by suffix stand for, since Envoy compares types as a whole."""
_PART: Final = 206


_KEPT: Final = "toska.etag_kept"
_WEAKENED: Final = "toska.etag_weakened"
_LUA: Final = ".filters.http.lua.v3."
_KEEP: Final = """
function envoy_on_response(handle)
  local etag = handle:headers():get("etag")
  if etag then handle:streamInfo():dynamicMetadata():set("toska.etag", "strong", etag) end
end
"""
_WEAKEN: Final = """
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get("etag") or not headers:get("content-encoding") then return end
  local kept = handle:streamInfo():dynamicMetadata():get("toska.etag")
  if kept and kept.strong then headers:add("etag", "W/" .. kept.strong) end
end
"""


class Compressor(NamedTuple):
    """One algorithm in one way."""

    name: str
    config: Json


def filters_of(table: RouteTable) -> Iterator[Json]:
    """Every filter that any route asks for, in the order in which algorithms are preferred."""
    made: dict[str, Json] = {}
    for route in table.routes:
        if route.policies.compress is not None:
            made |= {one.name: one.config for one in compressors(route.policies.compress)}
    for name, config in made.items():
        yield {"name": name, "disabled": True, "typed_config": config}


def of_route(compression: Compression) -> dict[str, Json]:
    """What turns them on for a route."""
    per_route = typed(f"{_KIND}CompressorPerRoute", overrides={"response_direction_config": {}})
    lua = typed(f"{_LUA}LuaPerRoute", filter_context={})
    return {_KEPT: lua, **{one.name: per_route for one in compressors(compression)}, _WEAKENED: lua}


def keeping() -> Json:
    """Notes a response's ETag before the compressors drop it, as they do with strong ones."""
    return _lua(_KEPT, _KEEP)


def weakening() -> Json:
    """Puts it back as a weak one where they did: what is compressed has the same meaning and other bytes."""
    return _lua(_WEAKENED, _WEAKEN)


def _lua(name: str, script: str) -> Json:
    config = typed(f"{_LUA}Lua", default_source_code={"inline_string": script})
    return {"name": name, "disabled": True, "typed_config": config}


def compressors(compression: Compression) -> Iterator[Compressor]:
    """The filters of one policy, the preferred algorithm first."""
    mark = hashlib.sha256(compression.model_dump_json().encode()).hexdigest()[:12]
    for number, algorithm in enumerate(compression.algorithms):
        config = typed(
            f"{_KIND}Compressor",
            compressor_library=_library(algorithm, compression),
            choose_first=number == 0,
            response_direction_config={
                "common_config": {
                    "min_content_length": max(1, compression.min_bytes),
                    "content_type": [*_types(compression.content_types)],
                },
                "uncompressible_response_codes": [_PART],
            },
        )
        yield Compressor(f"toska.compress.{mark}.{algorithm}", config)


def untranslatable(content_types: tuple[str, ...]) -> list[str]:
    """Ranges that Envoy has no words for."""
    return [one for one in content_types if "*" in one and one not in _SUFFIX_TYPES]


def _types(ranges: tuple[str, ...]) -> Iterator[str]:
    for one in ranges:
        yield from _SUFFIX_TYPES.get(one, (one,))


def _library(algorithm: str, compression: Compression) -> Json:
    levels = compression.levels
    match algorithm:
        case "br":
            kind, settings = "brotli", {"quality": levels.br}
        case "zstd":
            kind, settings = "zstd", {"compression_level": levels.zstd}
        case _:
            kind, settings = "gzip", {"compression_level": f"COMPRESSION_LEVEL_{levels.gzip}"}
    package = f".compression.{kind}.compressor.v3.{kind.capitalize()}"
    return extension(f"toska.{kind}", package, **settings)
