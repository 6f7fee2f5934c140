"""Other paths and hosts: what upstreams are asked for, and where clients are sent."""

import re
from typing import Final
from urllib.parse import urlsplit

from toska_common.contracts.routing import Match, Redirect, Route
from toska_common.envoy.matching import encoded, without_slash
from toska_common.envoy.words import Json

_CODES: Final = {
    301: "MOVED_PERMANENTLY", 302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT", 308: "PERMANENT_REDIRECT",
}  # fmt: skip


def rewriting(route: Route) -> Json:
    """Parts of a route's action."""
    rewrite = route.policies.rewrite
    parts: Json = {}
    if route.strip_prefix:
        parts |= _other_prefix(route.match.path_prefix or "/", "/")
    elif rewrite is not None and rewrite.prefix is not None:
        parts |= _other_prefix(route.match.path_prefix or "/", rewrite.prefix)
    elif rewrite is not None and rewrite.replacement is not None:
        regex = rewrite.regex or route.match.path_regex or ""
        parts["regex_rewrite"] = {"pattern": {"regex": f"^{_grouped(regex)}$"}, "substitution": rewrite.replacement}
    if rewrite is not None and rewrite.host is not None:
        parts["host_rewrite_literal"] = rewrite.host
    return parts


def _grouped(regex: str) -> str:
    return f"(?:{regex})"


def _other_prefix(before: str, after: str) -> Json:
    old, new = encoded(without_slash(before)), encoded(without_slash(after))
    if old == new:
        return {}
    if not old:
        return {"prefix_rewrite": new + "/"}
    # By expression: Envoy's prefix_rewrite would make "//" of what is stripped, or leave nothing of it.
    pattern = f"^{re.escape(old)}/?(.*)$" if not new else f"^{re.escape(old)}(.*)$"
    return {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": f"{_as_text(new)}{'' if new else '/'}\\1"}}


def _as_text(path: str) -> str:
    return path.replace("\\", r"\\")


def redirect(match: Match, there: Redirect) -> Json:
    """A redirect; Envoy writes the whole URL into Location."""
    made: Json = {"response_code": _CODES[there.status]}
    if not there.keep_query:
        made["strip_query"] = True
    if there.scheme is not None:
        made["scheme_redirect"] = there.scheme
    if there.host is not None:
        made |= _authority(there.host)
    if there.prefix is not None:
        made |= _other_prefix(match.path_prefix or "/", there.prefix)
    if there.to is not None:
        made |= _place(match, there.to)
    return made


def _authority(host: str) -> Json:
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        return {"host_redirect": name, "port_redirect": int(port)}
    return {"host_redirect": host}


def _place(match: Match, to: str) -> Json:
    parts = urlsplit(to)
    path = parts.path or "/"
    path += f"?{parts.query}" if parts.query else ""
    made: Json = {}
    if parts.scheme:
        made |= {"scheme_redirect": parts.scheme, **_authority(parts.netloc)}
    if match.path_regex is not None and "\\" in path:
        return {
            **made,
            "regex_rewrite": {"pattern": {"regex": f"^{_grouped(match.path_regex)}$"}, "substitution": path},
        }
    return {**made, "path_redirect": path}
