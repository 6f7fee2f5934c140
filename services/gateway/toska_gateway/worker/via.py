"""Via: through whom a message came (RFC 9110 §7.6.3), and requests that come round again.

A gateway's name in it is its own, shared by its workers only: two gateways behind one another are no loop, and one that
meets its own name is.
"""

from typing import Final, NamedTuple

NAME: Final = "toska"


class Endings(NamedTuple):
    """What a response's head ends with, by what becomes of the client's connection."""

    persistent: bytes
    close: bytes
    keep_alive: bytes  # for HTTP/1.0, where that has to be said


class Via:
    """One gateway's signature on what it passes on."""

    __slots__ = ("_pseudonym", "member", "member_10", "of_http10", "of_http11")

    def __init__(self, pseudonym: str = NAME) -> None:
        self._pseudonym = pseudonym.encode("ascii")
        self.member = b"1.1 " + self._pseudonym
        self.member_10 = b"1.0 " + self._pseudonym
        self.of_http11 = _endings(self.member)
        self.of_http10 = _endings(self.member_10)

    def passed_here(self, values: tuple[bytes, ...]) -> bool:
        """Whether a request with these Via lines has been here before."""
        return any(self._pseudonym in value and self._is_listed(value) for value in values)

    def _is_listed(self, value: bytes) -> bool:
        # A member is a protocol, a name, and perhaps a comment.
        return any(member.split()[1:2] == [self._pseudonym] for member in value.split(b","))


def _endings(member: bytes) -> Endings:
    line = b"via: " + member + b"\r\n"
    return Endings(line + b"\r\n", line + b"connection: close\r\n\r\n", line + b"connection: keep-alive\r\n\r\n")
