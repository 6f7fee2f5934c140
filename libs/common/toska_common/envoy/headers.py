"""Header rules, and what upstreams are told about who asked."""

from collections.abc import Iterable
from typing import Final

from toska_common.contracts.routing import HeaderEdits, Hsts, Route, SecurityHeaders
from toska_common.envoy.words import Json, header, literal
from toska_common.placeholders import split_placeholders

CLIENT: Final = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
PEER: Final = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
_APPEND: Final = "APPEND_IF_EXISTS_OR_ADD"
_IF_ABSENT: Final = "ADD_IF_ABSENT"
_COMMANDS: Final = {
    "client_ip": CLIENT,
    "host": "%REQ(X-FORWARDED-HOST?:AUTHORITY)%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "scheme": "%REQ(X-FORWARDED-PROTO)%",
}
SPOOFED: Final = (
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix",
    "x-forwarded-proto", "x-real-ip", "x-request-id", "x-toska-caller", "x-toska-mirror",
)  # fmt: skip
"""What a client says of itself that is believed of trusted proxies only."""
FLEETING: Final = ("keep-alive", "proxy-authorization", "proxy-connection")
"""Fields of one hop that Envoy would pass on."""
OF_THE_MESH: Final = "x-consul-token"
"""The mesh's own credential, for its own clusters only."""


def edits(rules: HeaderEdits, route: str) -> tuple[list[Json], list[str]]:
    """Fields to add and to remove; Envoy removes first, too."""
    added = [header(name, _value(value, route), keep_empty=True) for name, value in rules.set.items()]
    added += [header(name, _value(value, route), action=_APPEND, keep_empty=True) for name, value in rules.add.items()]
    return added, list(rules.remove)


def _value(template: str, route: str) -> str:
    commands = {**_COMMANDS, "route": literal(route)}
    return "".join(
        literal(text) + (commands[placeholder] if placeholder else "")
        for text, placeholder in split_placeholders(template)
    )


def forwarding(pseudonym: str) -> list[Json]:
    """What every upstream is told of who asked; Envoy itself would tell its own address where the client is local."""
    element = f'for={CLIENT};host="%REQ(:AUTHORITY)%";proto=%REQ(X-FORWARDED-PROTO)%'
    return [
        header("x-forwarded-for", PEER, action=_APPEND),
        header("x-forwarded-host", "%REQ(:AUTHORITY)%", action=_IF_ABSENT),
        header("x-real-ip", CLIENT),
        header("forwarded", element, action=_APPEND),
        header("via", f"1.1 {literal(pseudonym)}", action=_APPEND),
    ]


def prefix_told(route: Route) -> list[Json]:
    """X-Forwarded-Prefix of a route that strips its prefix."""
    prefix = (route.match.path_prefix or "/").rstrip("/")
    if not route.strip_prefix or not prefix:
        return []
    return [header("x-forwarded-prefix", f"%REQ(X-FORWARDED-PREFIX)%{literal(prefix)}")]


def security(fields: SecurityHeaders) -> list[Json]:
    """Fields that make browsers careful."""
    values = {
        "x-content-type-options": "nosniff" if fields.content_type_options else None,
        "x-frame-options": fields.frame_options,
        "referrer-policy": fields.referrer_policy,
        "permissions-policy": fields.permissions_policy,
        "content-security-policy": fields.content_security_policy,
        "content-security-policy-report-only": fields.content_security_policy_report_only,
        "cross-origin-opener-policy": fields.cross_origin_opener_policy,
        "cross-origin-embedder-policy": fields.cross_origin_embedder_policy,
        "cross-origin-resource-policy": fields.cross_origin_resource_policy,
    }
    action = "OVERWRITE_IF_EXISTS_OR_ADD" if fields.override else _IF_ABSENT
    return [header(name, literal(value), action=action) for name, value in values.items() if value is not None]


def strict_transport(hsts: Hsts, *, override: bool) -> Json:
    """Strict-Transport-Security, for answers over TLS."""
    parts = [f"max-age={int(hsts.max_age.total_seconds())}"]
    parts += ["includeSubDomains"] * hsts.include_subdomains + ["preload"] * hsts.preload
    action = "OVERWRITE_IF_EXISTS_OR_ADD" if override else _IF_ABSENT
    return header("strict-transport-security", "; ".join(parts), action=action)


def allowed(methods: Iterable[str]) -> Json:
    """Allow, of a path that takes only these methods."""
    return header("allow", ", ".join(sorted(methods)))
