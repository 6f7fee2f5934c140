"""What a translation depends on besides the routing: where this Envoy listens, and where it finds the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from toska_common.contracts.routing import Endpoint
from toska_common.envoy.words import Json

RUNTIME: Final[Json] = {"re2.max_program_size.error_level": 1_000_000}
"""What every Envoy is started with: by default it refuses expressions of more than a hundred instructions, such as a
short list of words without regard to case, and all of the configuration with them. Ours are bounded before
(`toska_common.regexes`)."""

SourceKind = Literal["routes", "endpoints"]


def aggregated(_kind: SourceKind, _name: str) -> Json:
    """Where resources come from: over the stream that everything comes over (ADS)."""
    return {"ads": {}, "resource_api_version": "V3"}


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """One listener. `tls` and `proxied` are `None` where the routing decides; `redirect` 0 is none."""

    name: str
    host: str = ""
    port: int = 0
    path: str = ""
    mode: int = 0o600
    tls: bool | None = None
    proxied: bool | None = None
    redirect: int = 0
    http3: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """Of one Envoy.

    Attributes:
        listeners: Where it listens.
        workers: How many threads it has; bounds that are per worker are multiplied by it.
        pseudonym: Its name in Via.
        folder: Where relative paths of certificates, keys and logs begin.
        source: Where it finds routes and endpoints that a resource names.
        addresses: Where an endpoint is that has a name; empty if nowhere. Without this Envoy looks names up.
        tls_version: Of the content of the files of TLS; another one makes Envoy read them again.
    """

    listeners: tuple[ListenerOptions, ...] = ()
    workers: int = 1
    pseudonym: str = "toska"
    folder: Path = field(default_factory=Path)
    source: Callable[[SourceKind, str], Json] = aggregated
    addresses: Callable[[Endpoint], Sequence[str]] | None = None
    tls_version: str = ""

    def tls_metadata(self) -> Json:
        """What makes a resource another one when the files that it names have another content."""
        return {"filter_metadata": {"toska.tls": {"version": self.tls_version}}}

    def file(self, name: str) -> str:
        """A file that the routing names."""
        return str(self.folder / Path(name).expanduser())
