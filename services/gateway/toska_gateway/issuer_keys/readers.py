"""Reading the JWK Set of one source."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from anyio import to_thread
from toska_common.contracts.routing import RouteTable
from toska_common.files import Stamp, stamp
from toska_common.routing.problems import Finding

from toska_gateway.issuer_keys.fetch import MAX_BYTES, KeysUnavailable, Refusal, fetch_key_set
from toska_gateway.issuer_keys.sources import KeySource, sources_of

if TYPE_CHECKING:
    from toska_common.jwt.key_set import KeySetContent

SHORTEST_S: Final = 30.0
LONGEST_S: Final = 3600.0
"""Bounds of what a server's Cache-Control may ask for; the policy's own interval may lie beyond them."""
_FILE_PERIOD_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ReadKeys:
    """A set of keys as it was read.

    Attributes:
        content: What is usable of it.
        version: Of the usable keys; the same for the same keys.
        again_in_s: When to look again.
    """

    content: "KeySetContent"
    version: str
    again_in_s: float


class KeyReader(Protocol):
    """Reads a source, each time anew."""

    async def read(self) -> ReadKeys | None:
        """The keys; `None` if nothing has changed since the last time, and that is known without reading.

        Raises:
            KeysUnavailable: They cannot be had.
        """
        ...

    @property
    def period_s(self) -> float:
        """When to look again if nothing was read."""
        ...


def parse_keys(content: bytes, algorithms: tuple[str, ...], again_in_s: float) -> ReadKeys:
    """Read a JWK Set.

    Raises:
        KeysUnavailable: It cannot be used.
    """
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError):
        raise KeysUnavailable("it is not JSON") from None
    return usable_keys(document, algorithms, again_in_s)


def usable_keys(document: object, algorithms: tuple[str, ...], again_in_s: float) -> ReadKeys:
    """What is usable of a parsed JWK Set.

    Raises:
        KeysUnavailable: Nothing.
    """
    # Here: cryptography is 10 MB, which only those gateways pay that verify tokens.
    from toska_common.jwt.key_set import UnusableKeySet, read_key_set

    try:
        content = read_key_set(document, algorithms)
    except UnusableKeySet as error:
        raise KeysUnavailable(str(error)) from None
    return ReadKeys(content, version_of(content.keys), again_in_s)


def version_of(keys: tuple[Mapping[str, Any], ...]) -> str:
    """A hash of keys."""
    return sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:32]


class UrlReader:
    """Fetches a JWK Set."""

    def __init__(self, url: str, source: KeySource, folder: Path, refusal: Refusal) -> None:
        self._url = url
        self._algorithms = source.algorithms
        self._ca = None if source.ca is None else folder / Path(source.ca).expanduser()
        self._refusal = refusal
        self.period_s = source.refresh.total_seconds()

    async def read(self) -> ReadKeys | None:
        fetched = await fetch_key_set(self._url, self._ca, self._refusal)
        again = self.period_s
        if fetched.max_age_s is not None:
            again = min(max(fetched.max_age_s, min(SHORTEST_S, again)), max(LONGEST_S, again))
        return parse_keys(fetched.content, self._algorithms, again)


class FileReader:
    """Reads a JWK Set from a file, when that is another."""

    period_s = _FILE_PERIOD_S

    def __init__(self, file: str, source: KeySource, folder: Path) -> None:
        self._path = folder / Path(file).expanduser()
        self._algorithms = source.algorithms
        self._stamp: Stamp = None
        self._failed = False

    async def read(self) -> ReadKeys | None:
        found = stamp(self._path)
        if found == self._stamp and found is not None and not self._failed:
            return None
        self._failed = True  # until it has been read to its end
        keys = parse_keys(await to_thread.run_sync(_read_file, self._path), self._algorithms, _FILE_PERIOD_S)
        self._stamp, self._failed = found, False
        return keys


class InlineReader:
    """The JWK Set that stands in the policy itself."""

    period_s = float("inf")

    def __init__(self, source: KeySource) -> None:
        self._source = source

    async def read(self) -> ReadKeys | None:
        return usable_keys(self._source.inline, self._source.algorithms, self.period_s)


def local_problems(table: RouteTable, folder: Path) -> list[Finding]:
    """What is wrong with the keys that a table names in files, or holds itself. Reads files, so in a thread."""
    findings: list[Finding] = []
    for source in sources_of(table).values():
        try:
            if source.file is not None:
                path = folder / Path(source.file).expanduser()
                parse_keys(_read_file(path), source.algorithms, _FILE_PERIOD_S)
            elif source.inline is not None:
                usable_keys(source.inline, source.algorithms, _FILE_PERIOD_S)
        except KeysUnavailable as error:
            member, told = ("jwks", str(error)) if source.file is None else ("jwks_file", f"{source.file}: {error}")
            findings.append(Finding((*source.at, member), told))
    return findings


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise KeysUnavailable(f"it cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise KeysUnavailable(f"it has more than {MAX_BYTES} bytes")
    return content


def reader_of(source: KeySource, folder: Path, refusal: Refusal) -> KeyReader:
    """The reader of a source; relative paths begin in `folder`."""
    if source.url is not None:
        return UrlReader(source.url, source, folder, refusal)
    return FileReader(source.file, source, folder) if source.file is not None else InlineReader(source)
