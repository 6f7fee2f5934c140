"""Header rules of a route: fields that are taken out, and lines that are put in, some made for each request."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from toska_common.placeholders import split_placeholders

from toska_gateway.worker.http1 import CRLF, encode_path
from toska_gateway.worker.http1.fields import drop_spellings

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange

Made = Callable[["Exchange"], bytes]

# None of these can hold a CR or LF, nor anything else that a field value may not: all come from fields and targets
# that were read strictly.
PLACEHOLDER_VALUES: Final[Mapping[str, Made]] = {
    "client_ip": lambda exchange: exchange.down.forwarding.client(exchange.head),
    "host": lambda exchange: exchange.head.host,
    "method": lambda exchange: exchange.head.method,
    "path": lambda exchange: encode_path(exchange.head.path),
    "request_id": lambda exchange: exchange.request_id(),
    "route": lambda exchange: exchange.route.name.encode(),
    "scheme": lambda exchange: exchange.down.forwarding.scheme_of(exchange.head),
}


class HeaderEdits:
    """The rules of one direction."""

    __slots__ = ("append", "drop", "make")

    def __init__(self, edits: dict[str, Any]) -> None:
        replaced: dict[str, str] = edits.get("set", {})
        lines = [_line(name, value) for name, value in (*replaced.items(), *edits.get("add", {}).items())]
        gone = (*edits.get("remove", ()), *replaced)
        self.drop = frozenset(name.encode("latin-1").replace(b"_", b"-") for name in gone)
        self.append = tuple(line for line in lines if isinstance(line, bytes))
        self.make = tuple(line for line in lines if not isinstance(line, bytes))

    def apply(self, parts: list[bytes], exchange: "Exchange") -> None:
        """Change a head's `parts` in place."""
        if self.drop:
            drop_spellings(parts, self.drop)
        parts += self.append
        for pieces in self.make:
            parts.append(b"".join([piece if isinstance(piece, bytes) else piece(exchange) for piece in pieces]))


def compile_edits(rules: dict[str, Any], direction: str) -> HeaderEdits | None:
    """The rules of a direction, if there are any."""
    edits = HeaderEdits(rules.get(direction) or {})
    return edits if edits.drop or edits.append or edits.make else None


def _line(name: str, value: str) -> bytes | tuple[bytes | Made, ...]:
    start = f"{name}: ".encode("latin-1")
    pieces: list[bytes | Made] = [start]
    for literal, placeholder in split_placeholders(value):
        pieces.append(literal.encode("latin-1"))
        if placeholder:
            pieces.append(PLACEHOLDER_VALUES[placeholder])
    pieces.append(CRLF)
    if len(pieces) == 3:  # nothing but a literal
        return start + value.encode("latin-1") + CRLF
    return tuple(pieces)
