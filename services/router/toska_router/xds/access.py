"""Who may come to the server: what a listener knows of its callers, and how it turns them away."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


class AccessRefused(Exception):
    """The caller may not have this.

    Args:
        reason: Told to the caller.
        known: Whether we know who it is, and that is not enough.
    """

    def __init__(self, reason: str, *, known: bool = False) -> None:
        super().__init__(reason)
        self.known = known


class AddressTaken(Exception):
    """Nobody can listen there."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opens a stream.

    Attributes:
        metadata: What it sent along, by lower-case name.
        verified: Whether it showed a certificate that was verified.
    """

    metadata: Mapping[str, str] = field(repr=False)
    verified: bool


@dataclass(frozen=True, slots=True, repr=False)
class ServerTls:
    """TLS of a listener, as PEM; with `client_ca` every client has to show a certificate of that authority."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None


TlsNow = Callable[[], ServerTls]
"""Gives what a listener is to show from now on; asked at every handshake, from a thread of gRPC's, so it only looks."""

Admit = Callable[[Caller, str], None]
"""Raises `AccessRefused`; called when a stream is opened, with an empty type, and then for each type on it."""


def admit_everybody(_caller: Caller, _type_url: str) -> None:
    """No access control: for listeners that only friends can reach."""
