"""A body on its way through filters."""

from collections.abc import Sequence

from toska_common.filters import BodyFilter

from toska_gateway.worker.filters.places import Place


class FilteredBody:
    """Passes each piece through filters, in order."""

    __slots__ = ("_filters",)

    resizes = True

    def __init__(self, filters: Sequence[tuple[Place, BodyFilter]]) -> None:
        self._filters = filters

    def feed(self, payload: bytes) -> bytes:
        for place, body_filter in self._filters:
            if not payload:
                break
            payload = _checked(place, place.call(body_filter.feed, payload))
        return payload

    def finish(self) -> bytes:
        rest = b""
        for place, body_filter in self._filters:
            fed = _checked(place, place.call(body_filter.feed, rest)) if rest else b""
            rest = fed + _checked(place, place.end_body(body_filter))
        return rest

    def abort(self) -> None:
        filters, self._filters = self._filters, ()
        for place, body_filter in filters:
            place.abort_body(body_filter)


def _checked(place: Place, piece: object) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, bytearray):
        return bytes(piece)  # (a copy: its owner may use it again)
    raise place.answered_wrongly(piece)
