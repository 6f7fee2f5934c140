"""Who is let in: by address (RBAC), and by what a verified token grants.

Each rule denies by a name that is the code of its problem, which Envoy tells in the response code's details.
"""

from ipaddress import ip_network
from typing import Final

from toska_common.contracts.routing import Auth, IpRules
from toska_common.envoy.words import Json, typed

BY_ADDRESS: Final = "toska.ip"
BY_GRANTS: Final = "toska.grants"
JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
_KIND: Final = ".filters.http.rbac.v3."
_ANYTHING: Final = [{"any": True}]


def rbac_filter(name: str) -> Json:
    """A filter, which does nothing for routes without rules."""
    return {"name": name, "typed_config": typed(f"{_KIND}RBAC")}


def by_address(rules: IpRules) -> Json:
    """Of a route."""
    refused: list[Json] = [{"remote_ip": cidr(network)} for network in rules.deny]
    if rules.allow:
        allowed = [{"remote_ip": cidr(network)} for network in rules.allow]
        refused.append({"not_id": {"or_ids": {"ids": allowed}}})
    return _denying({"ip-denied": refused})


def cidr(network: str) -> Json:
    """A network in CIDR."""
    parsed = ip_network(network)
    return {"address_prefix": str(parsed.network_address), "prefix_len": parsed.prefixlen}


def by_token(auth: Auth, provider: str) -> Json:
    """What a token that was verified has to grant, and to be; without one nothing is asked of it here."""
    shown = _present(provider, "header", "alg")
    wrong: list[Json] = [
        {"and_ids": {"ids": [shown, {"not_id": _one_of(_header(provider, "alg"), auth.jwt.algorithms)}]}},
    ]
    if auth.jwt.type:
        wrong.append({"and_ids": {"ids": [shown, {"not_id": _one_of(_header(provider, "typ"), auth.jwt.type)}]}})
    else:
        typ = _header(provider, "typ")
        known = ("JWT", "jwt", "at+jwt", "application/at+jwt")
        has = _present(provider, "header", "typ")
        wrong.append({"and_ids": {"ids": [shown, has, {"not_id": _one_of(typ, known)}]}})
    wrong += [
        {"and_ids": {"ids": [shown, {"not_id": _present(provider, "payload", *claim.split("."))}]}}
        for claim in auth.jwt.required_claims
    ]
    lacking: list[Json] = [
        {"not_id": _or([_holds(provider, ("scope",), scope), _holds(provider, ("scp",), scope)])}
        for scope in auth.scopes
    ]
    if auth.roles:
        path = tuple(auth.jwt.roles_claim.split("."))
        lacking.append({"not_id": _or([_holds(provider, path, role) for role in auth.roles])})
    return _denying({"invalid-token": wrong, "insufficient-scope": lacking})


def _denying(rules: dict[str, list[Json]]) -> Json:
    policies = {
        code: {"permissions": _ANYTHING, "principals": principals} for code, principals in rules.items() if principals
    }
    return typed(f"{_KIND}RBACPerRoute", rbac={"rules": {"action": "DENY", "policies": policies}})


def _or(ids: list[Json]) -> Json:
    return {"or_ids": {"ids": ids}}


def _metadata(path: tuple[str, ...], value: Json) -> Json:
    matcher = {"filter": JWT_FILTER, "path": [{"key": part} for part in path], "value": value}
    return {"sourced_metadata": {"metadata_matcher": matcher}}


def _header(provider: str, name: str) -> tuple[str, ...]:
    return f"{provider}.header", name


def _present(provider: str, part: str, *path: str) -> Json:
    return _metadata((f"{provider}.{part}", *path), {"present_match": True})


def _one_of(path: tuple[str, ...], words: tuple[str, ...]) -> Json:
    return _or([_metadata(path, {"string_match": {"exact": word}}) for word in words])


def _holds(provider: str, path: tuple[str, ...], word: str) -> Json:
    """A claim that is this word, or a list with it, or words with it between spaces."""
    whole = (f"{provider}.payload", *path)
    exact = {"string_match": {"exact": word}}
    return _or([_metadata(whole, exact), _metadata(whole, {"list_match": {"one_of": exact}})])
