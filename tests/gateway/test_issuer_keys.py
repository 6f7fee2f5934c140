"""Issuers' keys in a running gateway: fetched, rotated, away, wrong, kept; with a real server of JWK Sets."""

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from toska_common.routing.problems import InvalidDocument
from toska_tests.certificates import Authority, Pair
from toska_tests.gateways import Gateway, running_gateway, single, snapshot_of
from toska_tests.issuers import KeyServer, SigningKey, jwt_policy, key_server, key_set
from toska_tests.raw_http import (
    PATIENCE_S,
    Conversation,
    Message,
    Script,
    Upstream,
    ask,
    black_hole,
    connected,
    get,
    response,
    upstream,
)
from toska_tests.waiting import wait_until

OLD, NEW, THIRD = SigningKey("ES256", "old"), SigningKey("ES256", "new"), SigningKey("ES256", "third")


def server_context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def document(app: Upstream, jwt: dict[str, Any], **auth: Any) -> dict[str, Any]:
    return single(app.port, policies={"auth": {"jwt": jwt, **auth}})


def by_url(url: str, **more: Any) -> dict[str, Any]:
    return jwt_policy(OLD, jwks_url=url, **more)


async def ask_with(gateway: Gateway, token: str, *, patience_s: float = PATIENCE_S) -> Message:
    return await ask(gateway.address, get("/", f"Authorization: Bearer {token}"), patience_s=patience_s)


def a_route_each(app: Upstream, *servers: KeyServer) -> dict[str, Any]:
    """A route for each server of keys, which is looked at every second."""
    routes = [
        {"name": f"r{i}", "match": {"path_prefix": f"/r{i}"}, "to": "app",
         "policies": {"auth": {"jwt": by_url(server.url, jwks_refresh="1s")}}}
        for i, server in enumerate(servers)
    ]  # fmt: skip
    return {**single(app.port), "routes": routes}


def problem_of(gateway: Gateway) -> str:
    (status,) = gateway.supervisor.issuer_keys()
    return status.problem


@asynccontextmanager
async def served(*keys: SigningKey, **policy: Any) -> AsyncGenerator[tuple[Gateway, KeyServer]]:
    """A gateway that follows a server of these keys."""
    async with upstream() as app, key_server(*keys) as server, running_gateway() as gateway:
        await gateway.serve(document(app, by_url(server.url, **policy)))
        yield gateway, server


async def test_keys_are_fetched_and_the_first_request_waits_for_them() -> None:
    async with served(OLD) as (gateway, server):
        assert (await ask_with(gateway, OLD.token())).status == 200
        assert server.looks == 1
        assert server.server.requests[0].value("host") == f"127.0.0.1:{server.server.port}".encode()
        assert await gateway.metric("issuer_keys") == 1
        assert await gateway.metric("issuer_keys_stale") == 0


async def test_a_rotation_under_load_fails_no_request() -> None:
    """Old and new tokens in turn, from many clients, while the set changes three times."""
    async with upstream() as app, key_server(OLD) as server, running_gateway(workers=2) as gateway:
        await gateway.serve(document(app, by_url(server.url)))
        signing = [OLD]
        statuses: Counter[int] = Counter()
        done = asyncio.Event()

        async def load(number: int) -> None:
            async with connected(gateway.address) as client:
                while not done.is_set():
                    token = signing[0].token(sub=f"{number}-{statuses.total()}")
                    statuses[(await client.ask(get("/", f"Authorization: Bearer {token}"))).status] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(load(number))
            for key in (NEW, THIRD, OLD):
                before = statuses.total()
                await wait_until(lambda before=before: statuses.total() > before + 200)
                server.publish(signing[0], key)
                signing[0] = key  # signs with it at once: nobody has told the gateway
            before = statuses.total()
            await wait_until(lambda: statuses.total() > before + 200)
            done.set()
        assert set(statuses) == {200}
        assert server.looks <= 8


async def test_many_requests_that_miss_a_key_cost_its_server_one() -> None:
    async with served(OLD) as (gateway, server):
        assert (await ask_with(gateway, OLD.token())).status == 200
        server.publish(OLD, NEW)
        answers = await asyncio.gather(*(ask_with(gateway, NEW.token(sub=str(i))) for i in range(50)))
        assert {answer.status for answer in answers} == {200}
        assert server.looks <= 3


async def test_a_key_that_is_gone_signs_nothing_any_more_not_even_what_is_remembered() -> None:
    async with served(OLD, NEW) as (gateway, server):
        old = OLD.token()
        assert (await ask_with(gateway, old)).status == 200
        assert (await ask_with(gateway, NEW.token())).status == 200
        server.publish(NEW, THIRD)
        assert (await ask_with(gateway, THIRD.token())).status == 200  # which has them looked for
        refused = await ask_with(gateway, old)
        assert (refused.status, refused.error) == (401, "invalid-token")


async def test_keys_are_fetched_again_in_time() -> None:
    async with served(OLD, jwks_refresh="1s") as (gateway, server):
        assert (await ask_with(gateway, OLD.token())).status == 200
        server.publish(NEW)

        async def is_gone() -> bool:
            return (await ask_with(gateway, OLD.token())).status == 401

        await wait_until(is_gone)
        assert (await ask_with(gateway, NEW.token())).status == 200


async def test_tokens_that_nobody_has_signed_do_not_hammer_the_server() -> None:
    forger = SigningKey("ES256", "k0")
    async with served(OLD) as (gateway, server):
        assert (await ask_with(gateway, OLD.token())).status == 200
        tokens = [forger.token({"kid": f"k{i}"}) for i in range(200)]
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with connected(gateway.address) as client:
            statuses = [(await client.ask(get("/", f"Authorization: Bearer {one}"))).status for one in tokens]
        took = loop.time() - started
        assert set(statuses) == {401}
        assert server.looks <= 2 + 5  # at 1, 2, 4 s and so on
        assert took < 15
        assert (await ask_with(gateway, OLD.token())).status == 200


async def test_without_keys_nobody_can_tell_and_the_client_may_come_again() -> None:
    async with upstream() as app, running_gateway() as gateway:
        with black_hole() as port:
            await gateway.serve(document(app, by_url(f"http://127.0.0.1:{port}/jwks.json")))
            answer = await ask_with(gateway, OLD.token())
            assert (answer.status, answer.error) == (503, "keys-unavailable")
            assert int(answer.value("retry-after") or 0) >= 1
            assert (await ask_with(gateway, OLD.token(aud="bank"))).status == 401  # that much can be told
            assert not app.requests


NONSENSE = [
    (response(500), "it answered with status 500"),
    (response(302, "location: http://127.0.0.1/"), "it redirects, and redirects are not followed"),
    (response(200, body=b"<html>"), "it is not JSON"),
    (response(200, body=b"[]"), 'it is no JWK Set: an object with a list of "keys"'),
    (response(200, body=b'{"keys": []}'), "it has no key that could be used"),
    (response(200, body=b'{"keys": [7, {"kty": "oct", "k": "AAAA"}]}'), "key 1 is not used"),
    (response(200, body=b"[" * 100_000), "it is not JSON"),
    (response(200, "content-encoding: gzip", body=b"x"), "it sent a content coding that nobody asked for"),
    (response(200, body=b" " * 600_000), "it has more than 524288 bytes"),
    (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 600_000, "it sent more than 524288 bytes"),
    (b"garbage\r\n\r\n", "it cannot be fetched"),
]


@dataclass(frozen=True)
class Confused:
    """A gateway with a route for each server of keys, all of which answered well once, and now answer nonsense."""

    gateway: Gateway
    servers: list[KeyServer]

    async def ask(self, number: int, token: str) -> Message:
        """Send a token to the route whose keys are those of that server."""
        return await ask(self.gateway.address, get(f"/r{number}/", f"Authorization: Bearer {token}"))

    def problem(self, number: int) -> str:
        """What the gateway says of that server's keys."""
        (found,) = [one for one in self.gateway.supervisor.issuer_keys() if one.source == self.servers[number].url]
        return found.problem


@pytest.fixture(scope="module")
async def confused() -> AsyncGenerator[Confused]:
    async with AsyncExitStack() as stack:
        app, gateway = await stack.enter_async_context(upstream()), await stack.enter_async_context(running_gateway())
        servers = [await stack.enter_async_context(key_server(OLD)) for _ in NONSENSE]
        await gateway.serve(a_route_each(app, *servers))
        confused = Confused(gateway, servers)
        for number in range(len(NONSENSE)):
            assert (await confused.ask(number, OLD.token())).status == 200
        for server, (answer, _) in zip(servers, NONSENSE, strict=True):
            server.answer = answer
            if b"content-length" not in answer:
                server.server.script = saying_and_closing(answer)
        yield confused


def saying_and_closing(answer: bytes) -> Script:
    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(answer)

    return script


@pytest.mark.parametrize("number", range(len(NONSENSE)), ids=[problem for _, problem in NONSENSE])
async def test_a_server_that_answers_nonsense_leaves_the_keys_as_they_are(confused: Confused, number: int) -> None:
    problem = NONSENSE[number][1]
    await wait_until(lambda: problem in confused.problem(number), what=problem)
    assert (await confused.ask(number, OLD.token(sub="another"))).status == 200
    unknown = await confused.ask(number, NEW.token())
    assert (unknown.status, unknown.error) == (503, "keys-unavailable")


async def test_keys_that_are_not_fresh_are_counted(confused: Confused) -> None:
    numbers = range(len(NONSENSE))
    await wait_until(lambda: all(NONSENSE[number][1] in confused.problem(number) for number in numbers))

    async def are_counted() -> bool:
        return await confused.gateway.metric("issuer_keys_stale") == len(NONSENSE)

    await wait_until(are_counted, what="its worker knows of all of them")


async def test_keys_come_back_when_their_server_does() -> None:
    async with upstream() as app, running_gateway() as gateway:
        async with key_server(OLD) as server:
            port = server.server.port
            await gateway.serve(document(app, by_url(server.url, jwks_refresh="1s")))
            assert (await ask_with(gateway, OLD.token())).status == 200
        await wait_until(lambda: "no connection" in problem_of(gateway))
        assert (await ask_with(gateway, OLD.token(sub="b"))).status == 200
        async with key_server(OLD, NEW, port=port):
            await wait_until(lambda: not problem_of(gateway))
            assert (await ask_with(gateway, NEW.token())).status == 200


async def test_a_slow_server_holds_requests_only_so_long() -> None:
    async def silent(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.until_closed()

    async with upstream() as app, upstream(silent) as server, running_gateway() as gateway:
        await gateway.serve(document(app, by_url(f"http://127.0.0.1:{server.port}/jwks.json")))
        answer = await ask_with(gateway, OLD.token())  # which is not waited for any longer than everything is here
        assert (answer.status, answer.error) == (503, "keys-unavailable")
        assert await gateway.active() == 0


async def test_while_keys_cannot_be_looked_at_nobody_says_that_a_token_is_wrong() -> None:
    async with served(OLD) as (gateway, server):
        assert (await ask_with(gateway, OLD.token())).status == 200

        async def silent(conversation: Conversation) -> None:
            await conversation.request()
            await conversation.until_closed()

        server.server.script = silent
        # Held for one question to the parent, or for two: where one is under way that came too early for this token.
        unknown = await ask_with(gateway, NEW.token(), patience_s=20.0)
        assert (unknown.status, unknown.error) == (503, "keys-unavailable")
        assert (await ask_with(gateway, OLD.token(sub="b"))).status == 200


async def test_a_client_that_leaves_while_its_key_is_looked_for_leaves_nothing_behind() -> None:
    async def silent(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.until_closed()

    async with upstream() as app, upstream(silent) as server, running_gateway() as gateway:
        await gateway.serve(document(app, by_url(f"http://127.0.0.1:{server.port}/jwks.json")))
        async with connected(gateway.address) as client:
            await client.send(get("/", f"Authorization: Bearer {OLD.token()}"))
            await wait_until(lambda: bool(server.requests))
        await gateway.until_quiet()


async def test_keys_are_not_fetched_from_where_the_mesh_does_not_go() -> None:
    async with upstream() as app, key_server(OLD) as server:
        management = [("127.0.0.1", server.server.port)]
        async with running_gateway(management=management) as gateway:
            await gateway.serve(document(app, by_url(server.url)))
            answer = await ask_with(gateway, OLD.token())
            assert (answer.status, answer.error) == (503, "keys-unavailable")
            assert "management address of the mesh" in problem_of(gateway)
            assert not server.looks


async def test_a_servers_cache_control_says_when_to_look_again() -> None:
    async with (
        upstream() as app,
        key_server(OLD, fields=("cache-control: public, max-age=3600",)) as patient,
        key_server(OLD, fields=("cache-control: max-age=1",)) as restless,
        running_gateway() as gateway,
    ):
        await gateway.serve(a_route_each(app, patient, restless))
        await wait_until(lambda: restless.looks >= 4)
        assert patient.looks == 1


async def test_tls_is_verified_against_the_given_authority(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "Stranger")
    pair = authority.issue("keys", "localhost")

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(response(200, body=json.dumps(key_set(OLD)).encode()))

    async with upstream() as app, upstream(script, tls=server_context(pair)) as server, running_gateway() as gateway:
        url = f"https://localhost:{server.port}/jwks.json"
        await gateway.serve(document(app, by_url(url, jwks_ca=str(stranger.file))))
        assert (await ask_with(gateway, OLD.token())).error == "keys-unavailable"
        assert "certificate is not believed" in problem_of(gateway)
        await gateway.serve(document(app, by_url(url, jwks_ca=str(authority.file))))
        assert (await ask_with(gateway, OLD.token())).status == 200
        address = f"https://127.0.0.1:{server.port}/jwks.json"  # which the certificate is not made out for
        await gateway.serve(document(app, by_url(address, jwks_ca=str(authority.file))))
        assert (await ask_with(gateway, OLD.token(sub="b"))).error == "keys-unavailable"


async def test_a_file_of_keys_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(key_set(OLD)))
    async with upstream() as app, running_gateway() as gateway:
        await gateway.serve(document(app, jwt_policy(OLD, jwks_file=str(file))))
        assert (await ask_with(gateway, OLD.token())).status == 200
        file.write_text(json.dumps(key_set(NEW)))
        assert (await ask_with(gateway, NEW.token())).status == 200
        assert (await ask_with(gateway, OLD.token())).status == 401
        file.write_text("{")
        await wait_until(lambda: problem_of(gateway) == "it is not JSON")
        assert (await ask_with(gateway, NEW.token(sub="b"))).status == 200


async def test_a_secret_in_a_file_verifies_tokens_of_its_kind_only(tmp_path: Path) -> None:
    secret, public = SigningKey("HS256", "s"), SigningKey("RS256", "s")
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(key_set(secret)))
    async with upstream() as app, running_gateway() as gateway:
        await gateway.serve(document(app, jwt_policy(secret, jwks_file=str(file))))
        assert (await ask_with(gateway, secret.token())).status == 200
        assert (await ask_with(gateway, public.token())).status == 401
        weak = {"keys": [{"kty": "oct", "kid": "s", "k": "c2VjcmV0"}]}
        file.write_text(json.dumps(weak))
        await wait_until(lambda: "a secret has at least 32 bytes" in problem_of(gateway))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ([SigningKey("RS256", bits=1024).jwk], "an RSA key has at least 2048 bits, and this one 1024"),
        ([{**OLD.jwk, "crv": "P-384"}], "its coordinates are not of its curve's length"),
        ([{**OLD.jwk, "x": OLD.jwk["y"]}], "it is no valid key of its kind"),
        ([{**OLD.jwk, "use": "enc"}], "its use is not sig"),
        ([{**OLD.jwk, "key_ops": ["sign"]}], "verify is not among its key_ops"),
        ([{**OLD.jwk, "alg": "RS256"}], "its alg does not go with it"),
        ([{**OLD.jwk, "kid": 7}], "its kid is not a text"),
        ([SigningKey("EdDSA").jwk], "it goes with none of the algorithms"),
        ([{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}], "its crv is not P-256"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_with_their_place(keys: list[dict[str, Any]], reason: str) -> None:
    policy = {**jwt_policy(OLD, algorithms=["ES256", "RS256"]), "jwks": {"keys": keys}}
    with pytest.raises(InvalidDocument) as refused:
        snapshot_of(single(1, policies={"auth": {"jwt": policy}}))
    (problem,) = refused.value.problems
    assert problem.path == "routes[0].policies.auth.jwt"
    assert reason in problem.reason


async def test_workers_that_come_later_have_the_keys_at_once() -> None:
    async with served(OLD) as (gateway, server):

        async def has_them() -> bool:
            return await gateway.metric("issuer_keys") == 1

        await wait_until(
            has_them
        )  # or the first request, which came while they were looked for, has them looked for again
        assert (await ask_with(gateway, OLD.token())).status == 200
        await gateway.supervisor.renew()
        assert (await ask_with(gateway, OLD.token())).status == 200
        assert server.looks == 1


async def test_keys_outlive_the_gateway_while_their_server_is_away(home: Path) -> None:
    kept = home / "gateway" / "issuer-keys.json"
    async with upstream() as app:
        async with key_server(OLD) as server, running_gateway(home=home) as gateway:
            policy = document(app, by_url(server.url))
            await gateway.serve(policy)
            assert (await ask_with(gateway, OLD.token())).status == 200
            await wait_until(kept.exists)
        assert kept.stat().st_mode & 0o077 == 0
        async with running_gateway(home=home) as gateway:
            await gateway.serve(policy)
            assert (await ask_with(gateway, OLD.token())).status == 200
            (status,) = gateway.supervisor.issuer_keys()
            assert status.keys == 1
            await wait_until(lambda: "no connection" in problem_of(gateway))
        kept.write_text("{")
        async with running_gateway(home=home) as gateway:
            await gateway.serve(policy)
            assert (await ask_with(gateway, OLD.token())).error == "keys-unavailable"
        assert list(kept.parent.glob("issuer-keys.json.corrupt-*"))


async def test_sources_that_no_route_names_any_more_are_left_alone() -> None:
    async with served(OLD, jwks_refresh="1s") as (gateway, server):
        assert (await ask_with(gateway, OLD.token())).status == 200
        async with upstream() as app, key_server(OLD) as other:
            await gateway.serve(document(app, by_url(other.url, jwks_refresh="1s")))
            await wait_until(lambda: other.looks >= 2)  # and what was under way has come
            before = server.looks
            await wait_until(lambda: other.looks >= 4)
            assert server.looks == before
