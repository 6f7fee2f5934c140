"""Tokens verified and a line of JSON for each request: ours beside Envoy, which both can."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from benchmarks.machine import Cores
from benchmarks.profiles import PROFILES
from benchmarks.proxies.comparison import Options, ProfileFigures, compare
from benchmarks.proxies.envoy import ENVOY
from benchmarks.proxies.toska import TOSKA

_ABLE = (ENVOY.name, TOSKA.name)
"""nginx verifies tokens in its commercial edition only, and haproxy has no audience in a list, nor a key set."""
_HEADER = ("Authorization", "Bearer {token}")


def measure(
    options: Options, profiles: Sequence[str], *, cores: Cores, folder: Path, progress: Progress
) -> list[ProfileFigures]:
    """Measure those of the proxies that can, under each kind of traffic; empty if none of them is chosen."""
    able = tuple(name for name in options.proxies if name in _ABLE)
    if not able:
        return []
    chosen = replace(options, proxies=able)
    found: list[ProfileFigures] = []
    for name in profiles:
        plain = PROFILES[name]
        profile = replace(
            plain,
            name=f"secured {name}",
            title=f"{plain.title}, with a token verified (RS256) and a line of JSON logged",
            request_headers=(*plain.request_headers, _HEADER),
        )
        found.append(
            compare(profile, chosen, routes=1, cores=cores, folder=folder / name, progress=progress, guarded=True)
        )
    return found
