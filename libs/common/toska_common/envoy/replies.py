"""Envoy's own answers, told as the gateway tells them: problem documents with `x-toska-error`.

Envoy says in a response flag and in the response code's details why it answers by itself; what an upstream answered has
neither, and is left alone. The answers of routes themselves (redirects, fixed responses) have the detail
`direct_response`, and only those that are problems are told as such, by the route's name.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from toska_common.envoy.words import Json, header, typed

PROBLEM_ROUTE: Final = "toska-problem:"
"""How names of routes begin that answer with a problem; its code follows, and a colon."""


class Own(NamedTuple):
    """One kind of answer: when (in CEL, or by flags of Envoy), as what."""

    code: str
    status: int
    title: str
    detail: str
    flags: tuple[str, ...] = ()
    when: str = ""


_DETAILS: Final = "response.code_details"


def _begins(text: str) -> str:
    return f"{_DETAILS}.startsWith('{text}')"


def _any(*conditions: str) -> str:
    return " || ".join(conditions)


_TIMES: Final = _any(
    *(
        _begins(text)
        for text in ("response_timeout", "stream_idle_timeout", "upstream_per_try_timeout", "max_duration_timeout")
    )
)
_HEADS: Final = _any(_begins("http1.headers_too_large"), _begins("request_headers_too_large"), "response.code == 431")
_TARGETS: Final = _any(
    *(
        _begins(text)
        for text in ("http1.invalid_url", "http.path", "path_normalization_failed", "path", "escaped_slashes")
    )
)

REPLIES: Final = (
    Own("no-route", 404, "No route matches", "no route takes this request", ("NR",)),
    Own("circuit-open", 503, "Circuit open", "the cluster takes no requests now", (), _begins("cluster_drop")),
    Own("upstream-unavailable", 503, "No upstream available", "the cluster has no endpoint that is well", ("UH", "NC")),
    Own("upstream-overloaded", 503, "Upstream connection limit reached", "the cluster's limits are reached", ("UO",)),
    Own("upstream-timeout", 504, "Upstream timed out", "the upstream did not answer in time", ("UT", "UMSDR"), ""),
    Own("upstream-timeout", 504, "Upstream timed out", "the upstream did not answer in time", (), _TIMES),
    Own(
        "upstream-connect-failed", 502, "Upstream cannot be reached", "no connection to the upstream could be made",
        ("UF",),
    ),
    Own(
        "bad-upstream-response", 502, "Upstream sent a malformed response", "the upstream's answer is not HTTP",
        ("UPE",),
    ),
    Own("upstream-reset", 502, "Upstream closed the connection", "the connection broke too early", ("UC", "UR")),
    Own("fault-injected", 0, "Fault on purpose", "this route fails some requests on purpose", ("FI",)),
    Own("rate-limited", 429, "Too many requests", "the allowance is used up; come back later", ("RL",)),
    Own("rate-limited", 429, "Too many requests", "the allowance is used up; come back later", (),
        _begins("local_rate_limited")),
    Own("ip-denied", 403, "Address not served", "this route does not serve your address", (), _DETAILS
        + ".contains('[ip-denied]')"),
    Own("insufficient-scope", 403, "Token does not grant enough", "the token does not grant what this route needs", (),
        _DETAILS + ".contains('[insufficient-scope]')"),
    Own("invalid-token", 401, "Token not accepted", "the token is not of the algorithm or type that is wanted", (),
        _DETAILS + ".contains('[invalid-token]')"),
    Own("token-required", 401, "Token required", "this route needs a token", (),
        _DETAILS + ".contains('Jwt_is_missing')"),
    Own("keys-unavailable", 503, "Issuer's keys unavailable", "the issuer's keys cannot be fetched now", (),
        _DETAILS + ".contains('Jwks_remote_fetch_is_failed')"),
    Own("invalid-token", 401, "Token not accepted", "the token is not good", (), _begins("jwt_authn_access_denied")),
    Own("cors-denied", 403, "Not allowed to pages of this origin", "pages of this origin may not ask this", (),
        _begins("cors")),
    Own("body-too-large", 413, "Request body too large", "the body is larger than this route takes", (),
        "response.code == 413"),
    Own("too-many-headers", 431, "Too many headers", "the request has too many fields", (),
        _begins("http1.too_many_headers")),
    Own("header-too-large", 431, "Request header too large", "the request's head is too large", (), _HEADS),
    Own("request-timeout", 408, "Request timed out", "the request did not come in time", (), "response.code == 408"),
    Own("unsupported-version", 505, "HTTP version not supported", "this version of HTTP is not spoken here", (),
        "response.code == 505 || response.code == 426"),
    Own("bad-host", 400, "Host missing or malformed", "the request has no Host, or a malformed one", (),
        _any(_begins("missing_host"), _begins("http.invalid_authority"))),
    Own("bad-target", 400, "Malformed request target", "the request's target is malformed", (), _TARGETS),
    Own("unknown-coding", 501, "Unknown transfer coding", "this transfer coding is not known", (),
        _begins("http1.invalid_transfer_encoding")),
    Own("bad-framing", 400, "Ambiguous length of the body", "the length of the body is ambiguous", (),
        _any(_begins("http1.content_length_and"), _begins("http1.chunked"))),
)  # fmt: skip
"""In order: the first that fits tells what the answer is."""

_CHALLENGES: Final = {
    "token-required": "",
    "invalid-token": ', error="invalid_token"',
    "insufficient-scope": ', error="insufficient_scope"',
}
"""What clients are told to show (RFC 6750 §3)."""
_BESIDE: Final = f"{_DETAILS} != 'direct_response' && {_DETAILS} != 'via_upstream' && response.code >= 400"
"""Whatever else Envoy answers by itself."""


def local_reply_config() -> Json:
    """For a connection manager."""
    return {"mappers": [*_mappers()]}


def problem_route(name: str, code: str) -> str:
    """The name of a route that answers with a problem."""
    return f"{PROBLEM_ROUTE}{code}:{name}"


ROUTE_PROBLEMS: Final = (
    Own("bad-host", 400, "Host missing or malformed", "the request has more than one Host", ()),
    Own("method-not-allowed", 405, "Method not allowed", "this path takes other methods", ()),
    Own("https-only", 403, "Served over HTTPS only", "this route is served over HTTPS only", ()),
    Own("cors-denied", 403, "Not allowed to pages of this origin", "pages of this origin may not ask this", ()),
    Own("bad-target", 400, "Malformed request target", "the request's target is malformed", ()),
)
"""What routes answer by themselves that is a problem."""


def _mappers() -> Iterator[Json]:
    for own in ROUTE_PROBLEMS:
        condition = f"{_DETAILS} == 'direct_response' && xds.route_name.startsWith('{PROBLEM_ROUTE}{own.code}:')"
        yield _mapper(own, _cel(condition))
    for own in REPLIES:
        if own.flags:
            yield _mapper(own, {"response_flag_filter": {"flags": list(own.flags)}})
        else:
            yield _mapper(own, _cel(f"{_DETAILS} != 'direct_response' && ({own.when})"))
    yield _mapper(
        Own("upstream-error", 0, "", "the request could not be served"), _cel(f"{_BESIDE} && response.code >= 500")
    )
    yield _mapper(Own("bad-request", 0, "Bad request", "the request cannot be understood"), _cel(_BESIDE))


def _cel(expression: str) -> Json:
    kind = ".access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": {"name": "toska.cel", "typed_config": typed(kind, expression=expression)}}


def _mapper(own: Own, when: Json) -> Json:
    document: Json = {
        "type": f"/problems/{own.code}",
        "title": own.title or "Upstream failed",
        "status": "%RESPONSE_CODE%",
        "detail": own.detail,
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    fields = [header("x-toska-error", own.code)]
    if own.code in _CHALLENGES:
        fields.append(header("www-authenticate", f'Bearer realm="%ROUTE_NAME%"{_CHALLENGES[own.code]}'))
    mapper: Json = {
        "filter": when,
        "body_format_override": {
            "json_format": document,
            "omit_empty_values": True,
            "content_type": "application/problem+json",
        },
        "headers_to_add": fields,
    }
    return {**mapper, "status_code": own.status} if own.status else mapper
