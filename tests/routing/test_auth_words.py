"""The words of `policies.auth`: what is wrong is refused with its place, before anything trusts it."""

import json
from typing import Any

import pytest
from toska_common.contracts.routing import Auth, RouteTable
from toska_common.routing.document import load_document
from toska_common.routing.problems import InvalidDocument
from toska_common.routing.snapshot import build_snapshot, build_table

URL = "https://auth.example/jwks.json"
INLINE: dict[str, Any] = {"issuer": "https://auth.example", "audience": "shop"}
GOOD: dict[str, Any] = {"issuer": "https://auth.example", "audience": "shop", "jwks_url": URL}
KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    "key_ops": ["verify"],
}


def document(jwt: dict[str, Any], **auth: Any) -> dict[str, Any]:
    return {
        "clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}},
        "routes": [
            {"name": "r", "match": {"path": "/"}, "to": "app", "policies": {"auth": {"jwt": jwt, **auth}}}
        ],
    }  # fmt: skip


def read(jwt: dict[str, Any], **auth: Any) -> Auth:
    loaded = load_document(json.dumps(document(jwt, **auth)), source="test").routes[0].policies.auth
    assert loaded is not None
    return loaded


@pytest.mark.parametrize(
    ("jwt", "where", "reason"),
    [
        ({**GOOD, "algorithms": ["none"]}, "algorithms[0]", "'RS256'"),
        ({**GOOD, "algorithms": []}, "algorithms", "at least 1"),
        ({**GOOD, "algorithms": ["RS256", "HS256"]}, "", "stand alone"),
        ({**GOOD, "algorithms": ["HS256"]}, "", "belongs into jwks_file"),
        ({"issuer": "a", "audience": "b"}, "", "give one of jwks_url, jwks_file and jwks"),
        ({**INLINE, "jwks": {"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}}, "", "no key that could be used"),
        ({**GOOD, "jwks_file": "a.json"}, "", "give one of jwks_url, jwks_file and jwks"),
        ({**GOOD, "jwks_url": "http://auth.example/jwks.json"}, "", "jwks_url is https://"),
        ({**GOOD, "jwks_url": "https://user:secret@auth.example/"}, "jwks_url", "no user, password or fragment"),
        ({**GOOD, "jwks_url": "file:///etc/passwd"}, "jwks_url", "is a whole URL"),
        ({**GOOD, "jwks_url": "https://auth.example:x/"}, "jwks_url", "ort"),
        ({**GOOD, "jwks_url": "https://auth.example/a b"}, "jwks_url", "without spaces"),
        ({**GOOD, "jwks_url": "http://127.0.0.1/", "jwks_ca": "ca.pem"}, "", "jwks_ca is for https://"),
        ({**GOOD, "jwks_refresh": "10ms"}, "jwks_refresh", "between 1s and 24h"),
        ({**GOOD, "clock_skew": "1h"}, "clock_skew", "between 0s and 5m"),
        ({**GOOD, "audience": []}, "audience", "at least 1"),
        ({**GOOD, "forward": {"host": "sub"}}, "forward", "host cannot be set from a claim"),
        ({**GOOD, "forward": {"Authorization": "sub"}}, "forward", "authorization cannot be set"),
        ({**GOOD, "forward": {"x_forwarded_for": "sub"}}, "forward", "x-forwarded-for cannot be set"),
        ({**GOOD, "forward": {"x-user": "sub", "x_user": "sub"}}, "forward", "differ by - and _ alone"),
        ({**GOOD, "token_from": {}}, "token_from", "give either header or cookie"),
        ({**GOOD, "token_from": {"header": "authorization"}}, "token_from", "leave token_from out"),
        ({**GOOD, "max_token_bytes": "1MiB"}, "max_token_bytes", "65536"),
        ({"issuer": "a", "audience": "b", "jwks": {"keys": []}}, "jwks", "is a JWK Set"),
        ({"issuer": "a", "audience": "b", "jwks": {"keys": [{**KEY, "d": "AA"}]}}, "jwks", "holds a secret"),
        ({**GOOD, "isuer": "x"}, "isuer", 'did you mean "issuer"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place(jwt: dict[str, Any], where: str, reason: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        read(jwt)
    place = "routes[0].policies.auth.jwt" + (f".{where}" if where else "")
    assert any(one.path == place and reason in one.reason for one in refused.value.problems), refused.value.problems
    assert "secret@" not in str(refused.value)


def test_an_optional_token_goes_with_no_demand() -> None:
    with pytest.raises(InvalidDocument, match="optional lets requests through"):
        read(GOOD, optional=True, scopes=["a"])
    with pytest.raises(InvalidDocument):
        read(GOOD, scopes=["two words"])


def test_a_limit_by_a_claim_needs_tokens() -> None:
    text = document(GOOD)
    policies = text["routes"][0]["policies"]
    policies["rate_limit"] = {"requests": 1, "key": "claim:sub"}
    assert load_document(json.dumps(text), source="test").routes[0].policies.rate_limit[0].key == "claim:sub"
    del policies["auth"]
    with pytest.raises(InvalidDocument, match="needs auth"):
        load_document(json.dumps(text), source="test")


def test_one_name_is_a_list_of_one() -> None:
    auth = read({**GOOD, "type": "at+jwt"})
    assert (auth.jwt.audience, auth.jwt.type, auth.jwt.algorithms) == (("shop",), ("at+jwt",), ("RS256",))
    assert read({**GOOD, "jwks_url": "http://auth.example/", "jwks_allow_http": True}).jwt.jwks_allow_http


def test_a_snapshot_with_tokens_is_the_same_after_its_way_to_a_gateway() -> None:
    jwt = {
        "issuer": "a",
        "audience": ["b", "c"],
        "jwks": {"keys": [KEY]},
        "algorithms": ["ES256"],
        "forward": {"X-User": "sub"},
    }
    table = build_table(load_document(json.dumps(document(jwt, roles=["x y"])), source="test"))
    snapshot = build_snapshot(table)
    again = RouteTable.model_validate_json(table.model_dump_json(exclude_defaults=True))
    assert build_snapshot(again).version == snapshot.version
