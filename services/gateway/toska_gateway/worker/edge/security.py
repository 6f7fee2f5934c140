"""Fields that make browsers careful: HSTS (RFC 6797), framing, sniffing, referrers, content security."""

from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.http1 import CRLF, ResponseHead, field_name

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane

_HSTS: Final = b"strict-transport-security"
_AS_GIVEN: Final = (
    ("frame_options", b"x-frame-options"),
    ("referrer_policy", b"referrer-policy"),
    ("permissions_policy", b"permissions-policy"),
    ("content_security_policy", b"content-security-policy"),
    ("content_security_policy_report_only", b"content-security-policy-report-only"),
    ("cross_origin_opener_policy", b"cross-origin-opener-policy"),
    ("cross_origin_embedder_policy", b"cross-origin-embedder-policy"),
    ("cross_origin_resource_policy", b"cross-origin-resource-policy"),
)


class SecurityHeaders:
    """The fields of one route: on every answer, and what an upstream says itself stands unless it is overridden."""

    __slots__ = ("_all", "_lines", "_override", "_secure")

    def __init__(self, settings: dict[str, Any], route: str, plane: "Plane") -> None:
        lines = {name: settings[key].encode("latin-1") for key, name in _AS_GIVEN if settings[key] is not None}
        if settings["content_type_options"]:
            lines[b"x-content-type-options"] = b"nosniff"
        self._lines = {name: name + b": " + value + CRLF for name, value in lines.items()}
        self._all = b"".join(self._lines.values())
        self._secure = b""
        if settings["hsts"] is not None:
            self._secure = self._lines[_HSTS] = _HSTS + b": " + _hsts(settings["hsts"]) + CRLF
        self._override: bool = settings["override"]

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Give the answer its fields, whoever gives it."""
        # RFC 6797 §7.2: over plain HTTP anybody could have said it, so it is not said there.
        if self._secure and exchange.down.forwarding.scheme_of(exchange.head) == b"https":
            exchange.added += self._secure
        exchange.added += self._all
        return True

    def shape(self, exchange: "Exchange", head: ResponseHead) -> None:
        """Say once what both say, in the words of whoever has the last."""
        lines, parts = self._lines, head.parts
        said = [part for part in parts[1:] if field_name(part) in lines]
        if not said:
            return
        if self._override:
            parts[1:] = [part for part in parts[1:] if part not in said]
            return
        for part in said:
            exchange.added = exchange.added.replace(lines[field_name(part)], b"", 1)


def _hsts(settings: dict[str, Any]) -> bytes:
    value = b"max-age=%d" % settings["max_age"]
    if settings["include_subdomains"]:
        value += b"; includeSubDomains"
    return value + b"; preload" if settings["preload"] else value
