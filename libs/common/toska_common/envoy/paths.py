"""Other paths and hosts: what upstreams are asked for, and where clients are sent."""

import re
from typing import Final
from urllib.parse import urlsplit

from toska_common.contracts.routing import Match, Redirect, Route
from toska_common.envoy.matching import encoded, path_regex, without_slash
from toska_common.envoy.words import Json
from toska_common.path_templates import PathTemplate
from toska_common.regexes import Regex

_NAMED: Final = re.compile(r"\\g<(\w+)>")

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
        regex = rewrite.regex or path_regex(route.match) or ""
        template = None if rewrite.regex is not None else route.match.path_template
        parts["regex_rewrite"] = _replaced(regex, rewrite.replacement, template)
    if rewrite is not None and rewrite.host is not None:
        parts["host_rewrite_literal"] = rewrite.host
    return parts


def refers(text: str, match: Match) -> bool:
    """Whether there is anything of the request's path in a replacement."""
    return "\\" in text or (match.path_template is not None and "{" in text)


def _replaced(regex: str, text: str, template: str | None) -> Json:
    """Envoy knows groups by number alone."""
    known = Regex(regex)
    if template is not None:
        text = PathTemplate(template).references(text)

    def number(reference: re.Match[str]) -> str:
        return rf"\{known.group(reference[1]) if not reference[1].isdigit() else reference[1]}"

    substitution = _NAMED.sub(number, text)
    return {"pattern": {"regex": f"^{_grouped(regex)}$"}, "substitution": substitution}


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
    regex = path_regex(match)
    if regex is not None and refers(path, match):
        return {**made, "regex_rewrite": _replaced(regex, path, match.path_template)}
    return {**made, "path_redirect": path}
