"""What a response's body passes through on account of the cache."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toska_gateway.worker.cache.fetch import Fetch


class Recorder:
    """Keeps a copy of a body that is passed on, up to a bound; a body that is cut off leaves nothing."""

    __slots__ = ("_fetch", "_left", "_pieces", "resizes")

    def __init__(self, fetch: "Fetch", max_bytes: int) -> None:
        self.resizes = False
        self._fetch = fetch
        self._pieces: list[bytes] | None = []
        self._left = max_bytes

    def feed(self, payload: bytes) -> bytes:
        """Keep a piece."""
        pieces = self._pieces
        if pieces is not None:
            self._left -= len(payload)
            if self._left < 0:
                self._pieces = None
                self._fetch.give_up()
            else:
                pieces.append(payload)
        return payload

    def finish(self) -> bytes:
        """The body is whole."""
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            self._fetch.complete(b"".join(pieces))
        return b""

    def abort(self) -> None:
        """The body was cut off, by either side."""
        if self._pieces is not None:
            self._pieces = None
            self._fetch.cancel()


class Replacement:
    """Puts a stored body in the place of the upstream's."""

    __slots__ = ("_body", "resizes")

    def __init__(self, body: bytes) -> None:
        self.resizes = True
        self._body = body

    def feed(self, payload: bytes) -> bytes:
        """Nothing of it is wanted."""
        return b""

    def finish(self) -> bytes:
        """The stored body."""
        return self._body

    def abort(self) -> None:
        """There is nothing to undo."""
