"""Tokens at the door of a running gateway: who passes, what others are told, and what the upstream hears of it."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form
from toska_tests.gateways import Gateway, single
from toska_tests.issuers import SigningKey, b64, claims_of, forged_with_public_key, jwt_policy, seconds
from toska_tests.raw_http import Message, Upstream, ask, connected, get, upstream

KEY = SigningKey()
OTHER = SigningKey(kid="k1")


@pytest.fixture(scope="module")
async def app() -> AsyncGenerator[Upstream]:
    async with upstream() as app:
        yield app


async def serve(gateway: Gateway, app: Upstream, jwt: dict[str, Any] | None = None, **auth: Any) -> None:
    app.requests.clear()
    await gateway.serve(single(app.port, policies={"auth": {"jwt": jwt or jwt_policy(KEY), **auth}}))


async def ask_with(gateway: Gateway, token: str | None, *fields: str) -> Message:
    bearer = () if token is None else (f"Authorization: Bearer {token}",)
    return await ask(gateway.address, get("/", *bearer, *fields))


async def test_a_good_token_passes_and_reaches_the_upstream(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app)
    token = KEY.token()
    async with connected(gateway.address) as client:
        answers = [await client.ask(get("/", f"Authorization: Bearer {token}")) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [message.value("authorization") for message in app.requests] == [f"Bearer {token}".encode()] * 3
    assert await gateway.metric("tokens_verified_total") >= 1


async def test_without_a_token_the_client_is_told_what_to_show(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app)
    for fields in ((), ("Authorization: Basic YTpi",)):
        answer = await ask(gateway.address, get("/", *fields))
        assert (answer.status, answer.error) == (401, "token-required")
        assert answer.value("www-authenticate") == b'Bearer realm="all"'
        assert answer.value("content-type") == b"application/problem+json"
    assert not app.requests


def _by_algorithm() -> dict[str, str]:
    _, body, signature = KEY.token().split(".")
    public, unsigned = KEY.private.public_key(), b64(KEY.header({"alg": "none"}).encode())
    pem = public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
    claims = json.dumps(claims_of())
    return {
        "alg none without a signature": f"{unsigned}.{body}.",
        "alg none with the signature": f"{unsigned}.{body}.{signature}",
        "alg NONE": KEY.token({"alg": "NONE"}),
        "HS256 with the public key as PEM": forged_with_public_key(KEY, pem),
        "HS256 with the public key as DER": forged_with_public_key(KEY, der),
        "HS256 with the modulus": forged_with_public_key(KEY, KEY.jwk["n"].encode()),
        "another algorithm of the same key": KEY.signed(KEY.header({"alg": "RS512"}), claims, "RS512"),
        "PS256 with an RS256 key": KEY.signed(KEY.header({"alg": "PS256"}), claims, "PS256"),
        "alg that is no text": KEY.token({"alg": ["RS256"]}),
        "no alg": KEY.token({"alg": None}),
    }  # fmt: skip


def _by_key() -> dict[str, str]:
    return {
        "another key under the same kid": OTHER.token(),
        "a key of its own in jwk": OTHER.token({"jwk": OTHER.jwk}),
        "jku": OTHER.token({"jku": "https://evil.example/jwks.json"}),
        "x5u": OTHER.token({"x5u": "https://evil.example/cert.pem"}),
        "x5c": OTHER.token({"x5c": ["MIIB"]}),
        "jku although signed well": KEY.token({"jku": "https://issuer.example/jwks.json"}),
        "crit": KEY.token({"crit": ["exp"], "exp": seconds(300)}),
        "crit that is empty": KEY.token({"crit": []}),
        "b64 false": KEY.token({"b64": False, "crit": ["b64"]}),
        "typ of a logout token": KEY.token({"typ": "logout+jwt"}),
        "typ that is no text": KEY.token({"typ": 7}),
        "kid that is a path": KEY.token({"kid": "../../../../dev/null"}),
        "kid that is SQL": KEY.token({"kid": "k1' UNION SELECT 'x"}),
        "kid that is empty": KEY.token({"kid": ""}),
        "kid that is a number": KEY.token({"kid": 1}),
        "kid that is endless": KEY.token({"kid": "k" * 3000}),
        "kid with the same start": KEY.token({"kid": "k1\0"}),
    }


def _by_claims() -> dict[str, str]:
    head, claims = KEY.header({}), json.dumps(claims_of())
    return {
        "another issuer": KEY.token(iss="https://evil.example"),
        "an issuer that begins so": KEY.token(iss="https://issuer.example/"),
        "issuers in a list": KEY.token(iss=["https://issuer.example"]),
        "no issuer": KEY.token(iss=None),
        "another audience": KEY.token(aud="bank"),
        "other audiences": KEY.token(aud=["bank", "sho", "shops"]),
        "audiences in an object": KEY.token(aud={"shop": 1}),
        "no audience": KEY.token(aud=None),
        "expired": KEY.token(exp=seconds(-31)),
        "no exp": KEY.token(exp=None),
        "exp that is text": KEY.token(exp=str(seconds(300))),
        "exp that is true": KEY.token(exp=True),
        "nbf that is true": KEY.token(nbf=True),
        "exp that is endless": KEY.token(exp=10**30),
        "exp below zero": KEY.token(exp=-1),
        "not valid yet": KEY.token(nbf=seconds(600)),
        "nbf that is null": KEY.signed(head, json.dumps({**claims_of(), "nbf": None})),
        "from the future": KEY.token(iat=seconds(600)),
        "sub that is no text": KEY.token(sub=7),
        "claims twice": KEY.signed(head, claims[:-1] + f', "exp": {seconds(9999)}}}'),
        "header member twice": KEY.signed('{"alg": "RS256", "kid": "k1", "alg": "RS256"}', claims),
        "nested claim twice": KEY.signed(head, claims[:-1] + ', "a": {"b": 1, "b": 2}}'),
        "NaN": KEY.signed(head, claims[:-1] + ', "x": NaN}'),
        "a number beyond all": KEY.signed(head, claims[:-1] + ', "x": 1e999}'),
        "half a surrogate pair": KEY.signed(head, claims[:-1] + ', "x": "\\ud800"}'),
        "claims that are a list": KEY.signed(head, "[1]"),
        "claims that are no JSON": KEY.signed(head, "{"),
        "claims with something after": KEY.signed(head, claims + "{}"),
        "claims nested deeply": KEY.signed(head, '{"a":' * 800 + "1" + "}" * 800),
    }  # fmt: skip


def _by_form() -> dict[str, str]:
    good = KEY.token()
    head, body, signature = good.split(".")
    return {
        "a signature with padding": good + "==",
        "a signature spelled otherwise": f"{head}.{body}.{_respelled(signature)}",
        "a signature of another length": f"{head}.{body}.{signature[:-4]}",
        "no signature": f"{head}.{body}",
        "four parts": f"{good}.{signature}",
        "five parts": f"{good}.{head}.{body}",
        "the standard alphabet": f"{head}.{body}.+/{signature[2:]}",
        "one letter too many": f"{head}.{body}A.{signature}" if len(body) % 4 == 0 else f"{head}.{body}AAA.{signature}",
        "a space within": f"{head}. {body}.{signature}",
        "nothing but dots": "..",
        "garbage": "%%%",
        "oversized": KEY.token(pad="x" * 9000),
        "changed claims": f"{head}.{b64(json.dumps(claims_of(sub='mallory')).encode())}.{signature}",
    }  # fmt: skip


def _respelled(part: str) -> str:
    """The same bytes in other letters: bits of the last one stand for nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(part) % 4 == 2
    return part[:-1] + alphabet[alphabet.index(part[-1]) + 1]


ATTACKS = {**_by_algorithm(), **_by_key(), **_by_claims(), **_by_form()}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_token_that_is_not_right_is_refused_and_not_repeated(
    gateway: Gateway, app: Upstream, attack: str
) -> None:
    await serve(gateway, app)
    token = ATTACKS[attack]
    answer = await ask_with(gateway, token)
    assert (answer.status, answer.error) == (401, "invalid-token"), attack
    challenge = (answer.value("www-authenticate") or b"").decode()
    assert challenge.startswith('Bearer realm="all", error="invalid_token", error_description="')
    assert not app.requests
    told = answer.head + answer.body
    for part in token.split("."):
        assert len(part) < 4 or part.encode() not in told


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ({"header": "x-jwt"}, "X_Jwt: forged"),
        ({"header": "x-jwt"}, "X_JWT: forged"),
        ({"cookie": "sid"}, "Cookie: a=b; sid =forged"),
        ({"cookie": "sid"}, "Cookie: sid\t= forged"),
        (None, "Authorization: Bearer\tforged"),
        (None, "Authorization: bearer  forged"),
    ],
)
async def test_no_spelling_brings_an_unverified_token_to_the_upstream(
    gateway: Gateway, app: Upstream, place: dict[str, str] | None, field: str
) -> None:
    """WSGI folds _ into -, cookies are read with space around =, and schemes are split off at any white space."""
    more = {} if place is None else {"token_from": place}
    await serve(gateway, app, {**jwt_policy(KEY), **more}, optional=True)
    await ask(gateway.address, get("/", field))
    await ask(gateway.address, get("/", "x-after: 1"))  # what was sent before has arrived
    assert b"forged" not in b"".join(message.head for message in app.requests)


async def test_a_twin_of_the_tokens_field_goes_and_the_token_stays(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app, {**jwt_policy(KEY), "token_from": {"header": "x-jwt"}, "forward": {"x-user": "sub"}})
    token = KEY.token()
    answer = await ask(gateway.address, get("/", "X_Jwt: forged", f"X-Jwt: {token}", "X_User: root", "X-User: root"))
    assert answer.status == 200
    (message,) = app.requests
    assert message.value("x-jwt") == token.encode()
    assert b"forged" not in message.head
    assert b"root" not in message.head
