"""Rate limits, counted by Envoy itself in token buckets that refill evenly."""

from typing import Final

from toska_common.contracts.routing import Auth, RateLimit
from toska_common.envoy.access import JWT_FILTER
from toska_common.envoy.tokens import provider_name
from toska_common.envoy.words import Json, fraction, seconds, typed

NAME: Final = "toska.rate_limit"
_KIND: Final = ".filters.http.local_ratelimit.v3.LocalRateLimit"
_NUMBER: Final = "limit"
_KEY: Final = "key"
_CLIENTS: Final = 8192
"""Allowances of clients that are kept at once."""


def rate_limit_filter() -> Json:
    """The filter, which limits nothing by itself."""
    return {"name": NAME, "typed_config": typed(_KIND, stat_prefix="rate_limit")}


def rate_limits(route: str, limits: tuple[RateLimit, ...], auth: Auth | None) -> Json:
    """Of a route."""
    keyed = [(str(number), limit) for number, limit in enumerate(limits) if limit.key != "route"]
    common = [limit for limit in limits if limit.key == "route"]
    # Who lacks the key takes from the bucket of all, which is that of the only limit, or has room for everybody.
    default = (common or list(limits))[0]
    made = typed(
        _KIND,
        stat_prefix="rate_limit",
        token_bucket=_bucket(default),
        filter_enabled={"default_value": fraction(100)},
        filter_enforced={"default_value": fraction(100)},
        always_consume_default_token_bucket=bool(common),
        status={"code": "TooManyRequests"},
    )
    if keyed:
        made["rate_limits"] = [{"actions": [_mark(number), _action(limit, auth)]} for number, limit in keyed]
        made["descriptors"] = [
            {"entries": [{"key": _NUMBER, "value": number}, {"key": _entry_key(limit)}], "token_bucket": _bucket(limit)}
            for number, limit in keyed
        ]
        made["max_dynamic_descriptors"] = _CLIENTS
    return made


def _bucket(limit: RateLimit) -> Json:
    return {
        "max_tokens": limit.burst or limit.requests,
        "tokens_per_fill": limit.requests,
        "fill_interval": seconds(limit.per),
    }


def _mark(number: str) -> Json:
    return {"generic_key": {"descriptor_key": _NUMBER, "descriptor_value": number}}


def _entry_key(limit: RateLimit) -> str:
    return "remote_address" if limit.key == "client_ip" else _KEY


def _action(limit: RateLimit, auth: Auth | None) -> Json:
    kind, _, name = limit.key.partition(":")
    if kind == "header":
        return {"request_headers": {"header_name": name, "descriptor_key": _KEY}}
    if kind == "claim" and auth is not None:
        path = [f"{provider_name(auth.jwt)}.payload", *name.split(".")]
        key = {"key": JWT_FILTER, "path": [{"key": part} for part in path]}
        return {"metadata": {"descriptor_key": _KEY, "metadata_key": key, "source": "DYNAMIC"}}
    return {"remote_address": {}}
