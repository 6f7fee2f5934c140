"""Tokens that are verified at the door (JWT)."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

from toska_common.contracts.routing import Auth, Jwt, RouteTable
from toska_common.envoy.access import JWT_FILTER
from toska_common.envoy.options import Options
from toska_common.envoy.words import Json, seconds, typed

_KIND: Final = ".filters.http.jwt_authn.v3."
_CACHE: Final = 8192
_FETCH_TIMEOUT: Final = "5s"


def jwt_filter(table: RouteTable, options: Options) -> Json:
    """The filter with every issuer that a route names; it asks nothing of routes that name none."""
    providers: dict[str, Json] = {}
    requirements: dict[str, Json] = {}
    for auth in _auths(table):
        name = provider_name(auth.jwt)
        providers[name] = _provider(auth.jwt, name, options)
        requirements[requirement_name(auth)] = _requirement(auth, name)
    config = typed(f"{_KIND}JwtAuthentication", providers=providers, requirement_map=requirements)
    return {"name": JWT_FILTER, "typed_config": config}


def has_tokens(table: RouteTable) -> bool:
    """Whether any route asks for a token."""
    return any(True for _ in _auths(table))


def of_route(auth: Auth) -> Json:
    """What a route asks for."""
    return typed(f"{_KIND}PerRouteConfig", requirement_name=requirement_name(auth))


def provider_name(jwt: Jwt) -> str:
    """One name for the same rules, whatever route has them."""
    return hashlib.sha256(jwt.model_dump_json().encode()).hexdigest()[:16]


def requirement_name(auth: Auth) -> str:
    """Likewise of what is asked for."""
    return f"{provider_name(auth.jwt)}{'-optional' if auth.optional else ''}"


def _auths(table: RouteTable) -> Iterator[Auth]:
    return (route.policies.auth for route in table.routes if route.policies.auth is not None)


def _requirement(auth: Auth, provider: str) -> Json:
    wanted: Json = {"provider_name": provider}
    return {"requires_any": {"requirements": [wanted, {"allow_missing": {}}]}} if auth.optional else wanted


def _provider(jwt: Jwt, name: str, options: Options) -> Json:
    made: Json = {
        "issuer": jwt.issuer,
        "audiences": list(jwt.audience),
        "require_expiration": True,
        "clock_skew_seconds": max(1, round(jwt.clock_skew.total_seconds())),
        "forward": jwt.forward_token,
        "payload_in_metadata": f"{name}.payload",
        "header_in_metadata": f"{name}.header",
        "normalize_payload_in_metadata": {"space_delimited_claims": ["scope", "scp"]},
        "jwt_cache_config": {"jwt_cache_size": _CACHE},
        **_place(jwt),
        **_keys(jwt, options),
    }
    if jwt.forward:
        made["claim_to_headers"] = [
            {"header_name": header, "claim_name": claim} for header, claim in jwt.forward.items()
        ]
    return made


def _place(jwt: Jwt) -> Json:
    place = jwt.token_from
    if place is None:
        return {"from_headers": [{"name": "Authorization", "value_prefix": "Bearer "}]}
    if place.cookie is not None:
        return {"from_cookies": [place.cookie]}
    return {"from_headers": [{"name": place.header}]}


def _keys(jwt: Jwt, options: Options) -> Json:
    if jwt.jwks is not None:
        words = {name: [dict(key) for key in keys] for name, keys in jwt.jwks.items()}
        return {"local_jwks": {"inline_string": json.dumps(words, sort_keys=True)}}
    if jwt.jwks_file is not None:
        return {"local_jwks": {"filename": options.file(jwt.jwks_file)}}
    return {
        "remote_jwks": {
            "http_uri": {"uri": jwt.jwks_url, "cluster": keys_cluster_name(jwt), "timeout": _FETCH_TIMEOUT},
            "cache_duration": seconds(jwt.jwks_refresh),
            "async_fetch": {"fast_listener": True},
        }
    }


def keys_cluster_name(jwt: Jwt) -> str:
    """The cluster that an issuer's keys are fetched from."""
    return f"toska-keys:{provider_name(jwt)}"


def fetched(table: RouteTable) -> Iterable[Jwt]:
    """Rules whose keys are fetched, each once."""
    return {provider_name(auth.jwt): auth.jwt for auth in _auths(table) if auth.jwt.jwks_url is not None}.values()


def place_of(url: str) -> tuple[str, int, bool]:
    """Host, port, and whether TLS is spoken there."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return parts.hostname or "", parts.port or (443 if tls else 80), tls
