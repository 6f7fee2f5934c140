"""Verifying tokens without a gateway: beside another library, against garbage, and with keys of every kind."""

import contextlib
import json
from typing import Any

import jwt as pyjwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.jwt.claims import TokenRules, find_claim, frozen, plain, scopes_of
from toska_common.jwt.compact import decode_base64url, read_compact
from toska_common.jwt.key_set import KeySet, UnusableKeySet, read_key_set
from toska_common.jwt.keys import UnusableKey, read_key
from toska_common.jwt.refusals import TokenRefused, UnknownKey
from toska_common.jwt.verifier import verify
from toska_tests.issuers import AUDIENCE, ISSUER, SigningKey, b64, claims_of, key_set, seconds

ALGORITHMS = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "HS256",
    "HS512",
]
KEYS = {name: SigningKey(name, name) for name in ALGORITHMS}
ES = KEYS["ES256"]
GOOD = ES.token()


def rules(*algorithms: str, **more: Any) -> TokenRules:
    return TokenRules(ISSUER, frozenset({AUDIENCE}), frozenset(algorithms or ("ES256",)), **more)


def keys_of(*keys: SigningKey) -> KeySet:
    found = KeySet()
    found.replace([key.jwk for key in keys], "1")
    return found


ES_KEYS = keys_of(ES)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tokens_of_another_library_are_understood(algorithm: str) -> None:
    key = KEYS[algorithm]
    claims = claims_of(roles=["a"])
    token = pyjwt.encode(claims, key.private, algorithm, headers={"kid": algorithm})
    found = verify(token.encode(), rules(algorithm), keys_of(*KEYS.values()), seconds())
    assert plain(found.claims) == claims
    assert found.expires_at == claims["exp"] + 30


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_passes_here_passes_there(algorithm: str) -> None:
    """The other way round: our tests' tokens are good ones, so that what is refused is refused for its one fault."""
    key = KEYS[algorithm]
    verifying = key.private if algorithm.startswith("HS") else key.private.public_key()
    assert pyjwt.decode(key.token(), verifying, [algorithm], audience=AUDIENCE, issuer=ISSUER)["sub"] == "alice"


@pytest.mark.parametrize("signing", ALGORITHMS)
def test_a_key_verifies_nothing_but_its_own_algorithms(signing: str) -> None:
    key = KEYS[signing]
    for claimed in ALGORITHMS:
        token = key.signed(key.header({"alg": claimed}), json.dumps(claims_of()), signing).encode()
        allowed = rules(*(name for name in ALGORITHMS if name[:2] != "HS" or signing[:2] == "HS"))
        if claimed == signing:
            assert verify(token, allowed, keys_of(key), seconds()).claims["sub"] == "alice"
        else:
            with pytest.raises(TokenRefused):
                verify(token, allowed, keys_of(key), seconds())


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.lists(st.binary(max_size=40), max_size=5).map(b".".join)))
def test_garbage_is_refused(token: bytes) -> None:
    with pytest.raises(TokenRefused):
        verify(token, rules(), ES_KEYS, seconds())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["alg", "kid", "typ", "crit", "b64", "jku", "iss", "aud", "exp", "nbf", "iat", "sub", "jti", "x"]
)


@settings(max_examples=400, deadline=None)
@given(header=st.dictionaries(NAMES, JSON, max_size=3), claims=st.dictionaries(NAMES, JSON, max_size=4))
def test_any_json_in_a_signed_token_is_refused_or_is_what_was_signed(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """Signed by the right key, so nothing but what it says decides, and whatever it says is no accident."""
    members = {**json.loads(ES.header({})), **header}
    token = ES.signed(json.dumps(members), json.dumps({**claims_of(), **claims}), "ES256")
    try:
        found = verify(token.encode(), rules(), ES_KEYS, seconds())
    except TokenRefused as error:
        assert '"' not in error.reason
        assert "\\" not in error.reason
        return
    assert members["alg"] == "ES256"
    assert not {"crit", "b64", "jku"} & set(members)
    assert found.claims["iss"] == ISSUER
    assert AUDIENCE in found.claims["aud"]
    assert found.expires_at > seconds()


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_no_other_bytes_are_the_same_token(at: int, byte: int) -> None:
    changed = bytearray(GOOD.encode())
    if changed[at] == byte:
        return
    changed[at] = byte
    with pytest.raises(TokenRefused):
        verify(bytes(changed), rules(), ES_KEYS, seconds())


@given(st.binary(max_size=50))
def test_base64url_has_one_spelling(data: bytes) -> None:
    text = b64(data).encode()
    assert decode_base64url(text) == data
    if text:
        alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        for last in alphabet:
            if last != text[-1] and len(data) % 3:
                other = text[:-1] + bytes([last])
                with contextlib.suppress(TokenRefused):
                    assert decode_base64url(other) != data


def test_a_token_without_kid_is_tried_with_the_keys_that_fit() -> None:
    keys = [SigningKey("ES256", f"k{i}") for i in range(4)]
    tokens = [key.token({"kid": None}).encode() for key in keys]
    assert [verify(token, rules(), keys_of(*keys), seconds()).key.kid for token in tokens] == ["k0", "k1", "k2", "k3"]
    with pytest.raises(UnknownKey):
        verify(SigningKey("ES256").token({"kid": None}).encode(), rules(), keys_of(*keys), seconds())


def test_a_key_that_stays_through_a_change_lives_on_and_one_that_goes_does_not() -> None:
    keys = keys_of(ES, KEYS["RS256"])
    found = verify(GOOD.encode(), rules(), keys, seconds())
    keys.replace([KEYS["ES384"].jwk, ES.jwk], "2")
    assert found.key.live
    other = SigningKey("ES256", "ES256")  # the same name, another key
    keys.replace([other.jwk], "3")
    assert not found.key.live
    with pytest.raises(TokenRefused, match="signature does not fit"):
        verify(GOOD.encode(), rules(), keys, seconds())
    with pytest.raises(UnusableKey):
        keys.replace([{"kty": "EC"}], "4")
    assert keys.version == "3"
    assert len(keys) == 1


def test_of_a_key_set_only_what_is_usable_and_public_is_taken() -> None:
    private = {**KEYS["RS256"].jwk, "d": "AQAB", "p": "AQAB"}
    document = {"keys": [private, {"kty": "AKP"}, "x", {**ES.jwk, "use": "enc"}], "more": 1}
    found = read_key_set(document, ["RS256"])
    assert [set(key) for key in found.keys] == [{"kty", "kid", "n", "e"}]
    assert len(found.notes) == 4
    assert "private key" in found.notes[0]
    with pytest.raises(UnusableKeySet, match="more than 100 keys"):
        read_key_set({"keys": [ES.jwk] * 101}, ["ES256"])
    for wrong in ("7", "{}", '{"keys": {}}', "null", '"x"', '{"keys": []}', "[]"):
        with pytest.raises(UnusableKeySet):
            read_key_set(json.loads(wrong), ["ES256"])
    assert len(read_key_set(key_set(ES), ["ES256"]).keys) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"n": KEYS["RS256"].jwk["n"] * 5},  # 10,240 bits: each check would take milliseconds
        {"e": KEYS["RS256"].jwk["n"]},
        {"e": "Ag"},
        {"e": "AQ"},
        {"n": ""},
        {"n": 7},
        {"n": "*"},
    ],
)
def test_rsa_keys_that_are_slow_or_no_keys_are_not_used(change: dict[str, Any]) -> None:
    with pytest.raises(UnusableKey):
        read_key({**KEYS["RS256"].jwk, **change})


def test_claims_are_read_only_all_through() -> None:
    claims = frozen({"a": [{"b": [1]}], "c": {"d": 2}})
    with pytest.raises(TypeError):
        claims["a"][0]["b"] = 3
    with pytest.raises(TypeError):
        claims["c"]["d"] = 3
    assert isinstance(claims["a"], tuple)
    assert plain(claims) == {"a": [{"b": [1]}], "c": {"d": 2}}
    assert find_claim(claims, "c.d") == 2
    assert find_claim(claims, "c.d.e") is None
    assert find_claim({"c.d": 1, "c": {"d": 2}}, "c.d") == 1
    assert scopes_of({"scope": " a  b "}) >= {"a", "b"}


def test_what_is_read_of_a_token_is_believed_by_nobody_yet() -> None:
    token = read_compact(GOOD.encode(), 8192)
    assert (token.header["alg"], token.claims["sub"], len(token.signature)) == ("ES256", "alice", 64)
    assert GOOD.startswith(token.signed.decode())
    with pytest.raises(TokenRefused, match="more than 100 bytes"):
        read_compact(GOOD.encode(), 100)
