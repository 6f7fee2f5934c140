"""What a good token grants, and what the upstream is told of it: scopes, roles, claims in headers, other places."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from toska_common.clock import now_utc
from toska_gateway.worker.route import CLOCK_STEP
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.issuers import SigningKey, jwt_policy, seconds
from toska_tests.raw_http import Conversation, Message, Upstream, ask, connected, get, request, response, upstream

KEY = SigningKey("ES256")


@pytest.fixture(scope="module")
async def app() -> AsyncGenerator[Upstream]:
    async with upstream() as app:
        yield app


async def serve(gateway: Gateway, app: Upstream, jwt: dict[str, Any] | None = None, **auth: Any) -> None:
    app.requests.clear()
    await gateway.serve(single(app.port, policies={"auth": {"jwt": jwt_policy(KEY, **(jwt or {})), **auth}}))


async def ask_with(gateway: Gateway, token: str | None, *fields: str) -> Message:
    bearer = () if token is None else (f"Authorization: Bearer {token}",)
    return await ask(gateway.address, get("/", *bearer, *fields))


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"scope": "orders:read orders:write"}, 200),
        ({"scp": ["orders:write", "orders:read"]}, 200),
        ({"scp": "orders:write orders:read"}, 200),
        ({"scope": "orders:read", "scp": ["orders:write"]}, 200),
        ({"scope": "orders:read"}, 403),
        ({"scope": "orders:readorders:write"}, 403),
        ({"scope": ["orders:read", 7]}, 403),
        ({}, 403),
    ],
)
async def test_all_scopes_are_needed(gateway: Gateway, app: Upstream, claims: dict[str, Any], status: int) -> None:
    await serve(gateway, app, scopes=["orders:read", "orders:write"])
    answer = await ask_with(gateway, KEY.token(**claims))
    assert answer.status == status
    if status == 403:
        assert answer.error == "insufficient-scope"
        challenge = (answer.value("www-authenticate") or b"").decode()
        assert 'error="insufficient_scope"' in challenge
        assert challenge.endswith(', scope="orders:read orders:write"')


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"realm_access": {"roles": ["guest", "admin"]}}, 200),
        ({"realm_access": {"roles": "clerk"}}, 200),
        ({"realm_access.roles": ["clerk"]}, 200),
        ({"realm_access": {"roles": ["guest"]}}, 403),
        ({"realm_access": {"roles": {"clerk": 1}}}, 403),
        ({"realm_access": ["clerk"]}, 403),
        ({"roles": ["clerk"]}, 403),
    ],
)
async def test_one_of_the_roles_is_needed(gateway: Gateway, app: Upstream, claims: dict[str, Any], status: int) -> None:
    await serve(gateway, app, {"roles_claim": "realm_access.roles"}, roles=["clerk", "admin"])
    assert (await ask_with(gateway, KEY.token(**claims))).status == status


async def test_routes_with_one_issuer_ask_for_scopes_of_their_own(gateway: Gateway, app: Upstream) -> None:
    """A token that one route has let through is remembered, and grants another route nothing more for it."""
    policy = jwt_policy(KEY)
    document = single(app.port)
    document["routes"] = [
        {"name": name, "match": {"path_prefix": f"/{name}"}, "to": "app",
         "policies": {"auth": {"jwt": policy, "scopes": [name]}}}
        for name in ("read", "write")
    ]  # fmt: skip
    await gateway.serve(document)
    token = f"Authorization: Bearer {KEY.token(scope='read')}"
    async with connected(gateway.address) as client:
        assert [(await client.ask(get(path, token))).status for path in ("/read", "/write", "/read")] == [200, 403, 200]


async def test_the_upstream_is_told_claims_and_only_by_the_gateway(gateway: Gateway, app: Upstream) -> None:
    forward = {"x-user": "sub", "x-groups": "groups", "x-age": "age", "x-team": "org.team", "x-none": "none"}
    await serve(gateway, app, {"forward": forward})
    token = KEY.token(sub="älice", groups=["a", {"b": None}], age=7, org={"team": "blue"})
    posing = ("X-User: root", "x_user: root", "X-uSeR: root", "x-none: root", "X_None: root", "x-other: mine")
    async with connected(gateway.address) as client:
        for _ in range(2):  # verified, then remembered
            answer = await client.ask(get("/", *posing, f"Authorization: Bearer {token}"))
            assert answer.status == 200
    for heard in app.requests:
        assert heard.values("x-user") == ["älice".encode()]
        assert heard.value("x-groups") == b'["a",{"b":null}]'
        assert heard.value("x-age") == b"7"
        assert heard.value("x-team") == b"blue"
        assert heard.value("x-other") == b"mine"
        assert not {"x-none", "x_none", "x_user"} & set(heard.names())


@pytest.mark.parametrize("spelling", ["X-User", "x_user", "X_uSeR", "x-none"])
async def test_no_spelling_of_a_claims_header_gets_past(gateway: Gateway, app: Upstream, spelling: str) -> None:
    await serve(gateway, app, {"forward": {"x-user": "name", "x-none": "none"}}, optional=True)
    for token in (None, KEY.token()):  # which has no such claims
        assert (await ask_with(gateway, token, f"{spelling}: root")).status == 200
    for heard in app.requests:
        assert b"root" not in [value for _, value in heard.fields]


@pytest.mark.parametrize("sub", ["a\r\nx-admin: 1", "a\0", "a\nb", " a", "a\x7f", "", "x" * 5000])
async def test_a_claim_that_cannot_stand_in_a_header_is_left_out(gateway: Gateway, app: Upstream, sub: str) -> None:
    await serve(gateway, app, {"forward": {"x-user": "sub"}, "max_token_bytes": "16KiB"})
    assert (await ask_with(gateway, KEY.token(sub=sub), "x-user: root")).status == 200
    assert not {"x-user", "x-admin"} & set(app.requests[0].names())


async def test_the_token_can_be_kept_from_the_upstream(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app, {"forward_token": False, "forward": {"x-user": "sub"}})
    assert (await ask_with(gateway, KEY.token(), "x-other: mine")).status == 200
    assert app.requests[0].value("authorization") is None
    assert app.requests[0].value("x-user") == b"alice"
    assert app.requests[0].value("x-other") == b"mine"


async def test_an_optional_token_may_be_left_out_and_not_be_wrong(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app, {"forward": {"x-user": "sub"}}, optional=True)
    assert (await ask_with(gateway, None, "x-user: root")).status == 200
    assert (await ask_with(gateway, KEY.token())).status == 200
    assert (await ask_with(gateway, KEY.token(exp=seconds(-100)))).status == 401
    assert [heard.value("x-user") for heard in app.requests] == [None, b"alice"]


async def test_a_token_may_stand_in_a_header_of_its_own(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app, {"token_from": {"header": "x-token"}, "forward_token": False})
    assert (await ask(gateway.address, get("/", f"X-Token: {KEY.token()}"))).status == 200
    assert (await ask_with(gateway, KEY.token())).error == "token-required"
    assert app.requests[0].value("x-token") is None


async def test_a_token_may_stand_in_a_cookie(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app, {"token_from": {"cookie": "session"}, "forward_token": False})
    token = KEY.token()
    for cookies, status in (
        (f"a=1; session={token}; b=2", 200),
        (f'session="{token}"', 200),
        (f"session={token}; session={token}", 401),
        (f"xsession={token}", 401),
        ("a=1", 401),
    ):
        assert (await ask(gateway.address, get("/", f"Cookie: {cookies}"))).status == status, cookies
    assert [heard.value("cookie") for heard in app.requests] == [b"a=1; b=2", None]


async def test_two_tokens_are_ambiguous(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app)
    answer = await ask_with(gateway, KEY.token(), "authorization: Basic YTpi")
    assert (answer.status, answer.error) == (400, "ambiguous-token")
    assert b'error="invalid_request"' in (answer.value("www-authenticate") or b"")


async def test_a_token_that_the_client_nominates_for_this_hop_is_none(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app)
    assert (await ask_with(gateway, KEY.token(), "Connection: authorization")).error == "token-required"


async def test_a_body_waits_for_the_verdict(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app)
    bearer = f"Authorization: Bearer {KEY.token()}"
    assert (await ask(gateway.address, request("POST", "/", bearer, body=b"x" * 100_000), to="POST")).status == 200
    assert app.requests[0].body == b"x" * 100_000
    refused = await ask(gateway.address, request("POST", "/", body=b"x"), to="POST")
    assert (refused.status, refused.value("connection")) == (401, b"close")
    assert len(app.requests) == 1


async def test_answers_of_the_gateways_own_are_guarded_too(gateway: Gateway, app: Upstream) -> None:
    route = {"name": "secret", "match": {"path": "/"}, "respond": {"body": "42"}}
    await gateway.serve({"routes": [{**route, "policies": {"auth": {"jwt": jwt_policy(KEY)}}}]})
    assert (await ask_with(gateway, None)).status == 401
    assert (await ask_with(gateway, KEY.token())).body == b"42"


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed448"]
)
async def test_every_algorithm_with_a_public_key_is_served(gateway: Gateway, app: Upstream, algorithm: str) -> None:
    key = SigningKey(algorithm)
    policy = jwt_policy(key, audience=["other", "shop"])
    await gateway.serve(single(app.port, policies={"auth": {"jwt": policy}}))
    token = key.token(aud=["x", "shop"])
    assert (await ask_with(gateway, token)).status == 200
    head, body, signature = token.split(".")
    changed = signature[:8] + ("A" if signature[8] != "A" else "B") + signature[9:]
    assert (await ask_with(gateway, f"{head}.{body}.{changed}")).status == 401


async def test_a_tunnel_needs_a_token_like_any_request(gateway: Gateway, app: Upstream) -> None:
    policies = {"auth": {"jwt": jwt_policy(KEY)}, "upgrade": ["websocket"]}
    upgrade = ("Connection: upgrade", "Upgrade: websocket")

    async def switch(conversation: Conversation) -> None:
        await conversation.request_head()
        await conversation.send(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        )
        await conversation.send(await conversation.exactly(4))

    async with upstream(switch) as sockets:
        await gateway.serve(single(sockets.port, policies=policies))
        assert (await ask(gateway.address, get("/", *upgrade))).status == 401
        async with connected(gateway.address) as client:
            await client.send(get("/", *upgrade, f"Authorization: Bearer {KEY.token()}"))
            assert (await client.head()).status == 101
            await client.send(b"ping")
            assert await client.exactly(4) == b"ping"


async def test_the_type_can_be_pinned(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app, {"type": "at+jwt"})
    for kind, status in (("at+jwt", 200), ("application/at+JWT", 200), ("JWT", 401), (None, 401)):
        assert (await ask_with(gateway, KEY.token({"typ": kind}))).status == status, kind


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"exp": -8}, 200), ({"exp": -12}, 401), ({"nbf": 8}, 200), ({"nbf": 12}, 401), ({"iat": 8}, 200),
        ({"iat": 12}, 401),
    ],
)  # fmt: skip
async def test_the_issuers_clock_may_differ_by_the_skew_and_no_more(
    gateway: Gateway, app: Upstream, claims: dict[str, float], status: int
) -> None:
    await serve(gateway, app, {"clock_skew": "10s"})
    token = KEY.token(None, **{name: seconds(offset) for name, offset in claims.items()})
    assert (await ask_with(gateway, token)).status == status


async def test_a_token_that_is_remembered_ends_when_it_says(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app, {"clock_skew": "0s"})
    life_s, granted = 1, 0
    while granted < 10:  # where the machine takes a token's whole life, the next one has a longer one
        life_s *= 2
        granted = await granted_until(gateway, seconds(life_s))


async def granted_until(gateway: Gateway, end: int) -> int:
    """How often a token is let through before `end`, where it is never refused; afterwards it always is."""
    bearer = f"Authorization: Bearer {KEY.token(exp=end)}"
    granted = late = 0
    async with connected(gateway.address) as client:
        while True:
            asked_at = now_utc().timestamp()
            status = (await client.ask(get("/", bearer))).status
            if now_utc().timestamp() < end:
                assert status == 200
                granted += 1
            elif asked_at > end + CLOCK_STEP:
                if status == 401:
                    return granted
                late += 1
                # A worker that stood still finds the first request after that before it looks at its clock.
                assert late == 1, "a token that is over is let through"


async def test_a_rate_limit_may_go_by_a_claim(gateway: Gateway, app: Upstream) -> None:
    limit = {"requests": 2, "per": "1h", "key": "claim:org.id", "scope": "worker"}
    policies = {"auth": {"jwt": jwt_policy(KEY), "optional": True}, "rate_limit": limit}
    await gateway.serve(single(app.port, policies=policies))

    async def statuses(**claims: Any) -> list[int]:
        return [(await ask_with(gateway, KEY.token(**claims))).status for _ in range(3)]

    assert await statuses(org={"id": "a"}) == [200, 200, 429]
    assert await statuses(org={"id": "b"}, sub="bob") == [200, 200, 429]
    assert await statuses(org={"id": 7}) == [200, 200, 429]
    assert await statuses(org={"id": "127.0.0.1"}) == [200, 200, 429]  # no client's address, though it looks like one
    assert await statuses(org={"id": ["a"]}) == [200, 200, 429]  # by the client's address, ...
    assert (await ask_with(gateway, None)).status == 429  # ... which this comes from, too
    assert (await ask_with(gateway, KEY.token(exp=1))).status == 401  # refused before it is counted


async def test_required_claims_have_to_be_there(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app, {"required_claims": ["tenant"]})
    assert (await ask_with(gateway, KEY.token(tenant="a"))).status == 200
    assert (await ask_with(gateway, KEY.token())).error == "invalid-token"


async def test_the_problem_document_says_why(gateway: Gateway, app: Upstream) -> None:
    await serve(gateway, app)
    answer = await ask_with(gateway, KEY.token(exp=seconds(-100)))
    document = json.loads(answer.body)
    assert document["detail"] == "the token has expired"
    assert document["type"] == "/problems/invalid-token"
    assert b'error_description="the token has expired"' in (answer.value("www-authenticate") or b"")


async def test_a_token_is_verified_once_for_all_routes_and_changes_of_routes() -> None:
    async with upstream() as app, running_gateway() as gateway:
        token = KEY.token()
        for prefix in ("/", "/other"):
            document = single(app.port, policies={"auth": {"jwt": jwt_policy(KEY)}})
            document["routes"].append({**document["routes"][0], "name": "more", "match": {"path_prefix": f"{prefix}x"}})
            await gateway.serve(document)
            for target in ("/", f"{prefix}x"):
                assert (await ask(gateway.address, get(target, f"Authorization: Bearer {token}"))).status == 200
        assert await gateway.metric("tokens_verified_total") == 1


@pytest.mark.parametrize(
    ("control", "asked"), [("public, max-age=60", ["alice"]), ("max-age=60", ["alice", "bob", "alice"])]
)
@pytest.mark.parametrize("place", [{}, {"forward_token": False}, {"token_from": {"header": "x-token"}}])
async def test_nothing_that_is_kept_gets_around_the_token(
    gateway: Gateway, place: dict[str, Any], control: str, asked: list[str]
) -> None:
    """What one user was answered is kept for others only if the upstream says so, wherever the token stands."""
    jwt = jwt_policy(KEY, forward={"x-user": "sub"}, **place)
    answer = response(200, f"cache-control: {control}", body=b"ok")
    async with upstream(answer) as app:
        await gateway.serve(single(app.port, policies={"auth": {"jwt": jwt}, "cache": {}}))
        field = "X-Token: " if "token_from" in place else "Authorization: Bearer "
        target = (
            f"/{len(control)}-{len(place)}-{'forward_token' in place}"  # (what is kept outlives a change of routes)
        )
        for user in ("alice", "bob", "alice"):
            heard = await ask(gateway.address, get(target, field + KEY.token(sub=user)))
            assert (heard.status, heard.body) == (200, b"ok")
        assert (await ask(gateway.address, get(target))).status == 401
        assert (await ask(gateway.address, get(target, field + KEY.token(aud="bank")))).status == 401
        assert [(message.value("x-user") or b"").decode() for message in app.requests] == asked
