"""What the upstream is told about the caller, and what is kept from it: forwarding, traces, tokens of the mesh."""

import re

import pytest
from toska_tests.gateways import Gateway, cluster, route, running_gateway, single, with_mesh_cluster
from toska_tests.raw_http import Message, ask, connected, get, request, upstream

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ADMIN, JOIN = "toska_admin_0123456789abcdef", "toska_join_0123456789abcdef"

FORGED = (
    "X-Forwarded-For: 10.9.9.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.test",
    "X-Forwarded-Port: 443",
    "X-Forwarded-Prefix: /evil",
    "X-Real-IP: 10.9.9.9",
    "Forwarded: for=10.9.9.9",
    "X-Request-Id: mine",
)


async def forwarded(gateway: Gateway, message: bytes, **server: object) -> Message:
    """What the upstream gets of a request."""
    async with upstream() as app:
        await gateway.serve({**single(app.port), "server": server})
        assert (await ask(gateway.address, message)).status == 200
        return app.requests[0]


async def test_the_upstream_is_told_who_asked_for_what(gateway: Gateway) -> None:
    sent = await forwarded(gateway, get(host="shop.test:81"))
    assert sent.value("x-forwarded-for") == b"127.0.0.1"
    assert sent.value("x-forwarded-proto") == b"http"
    assert sent.value("x-forwarded-host") == b"shop.test:81"
    assert sent.value("via") == b"1.1 " + gateway.name
    assert sent.value("host") == b"shop.test:81"


async def test_forwarding_fields_of_strangers_are_not_believed(gateway: Gateway) -> None:
    for fields in (FORGED, tuple(field.upper() for field in FORGED), (*FORGED, *FORGED)):
        sent = await forwarded(gateway, get("/", *fields))
        assert sent.value("x-forwarded-for") == b"127.0.0.1"
        assert sent.value("x-forwarded-proto") == b"http"
        assert sent.value("x-forwarded-host") == b"test"
        assert sent.value("x-request-id") != b"mine"
        assert sent.value("x-real-ip") == b"127.0.0.1"
        assert sent.value("forwarded") == b'for=127.0.0.1;host="test";proto=http'
        assert not {"x-forwarded-port", "x-forwarded-prefix"} & set(sent.names())


async def test_underscore_twins_of_forwarding_fields_are_dropped_from_anybody(gateway: Gateway) -> None:
    twins = [field.replace("-", "_", 1) for field in FORGED if "-" in field]
    for trusted in ([], ["127.0.0.0/8"]):
        sent = await forwarded(gateway, get("/", *twins, "x_mine: 1"), trusted_proxies=trusted)
        assert [name for name in sent.names() if "_" in name] == ["x_mine"]


async def test_forwarding_fields_of_trusted_proxies_are_continued(gateway: Gateway) -> None:
    sent = await forwarded(gateway, get("/", *FORGED, "Via: 1.1 edge"), trusted_proxies=["10.0.0.0/8", "127.0.0.1/32"])
    assert sent.value("x-forwarded-for") == b"10.9.9.9, 127.0.0.1"
    assert sent.value("x-forwarded-proto") == b"https"
    assert sent.value("x-forwarded-host") == b"evil.test"
    assert sent.value("x-forwarded-port") == b"443"
    assert sent.value("x-forwarded-prefix") == b"/evil"
    assert sent.value("x-real-ip") == b"10.9.9.9"
    assert sent.value("forwarded") == b'for=10.9.9.9, for=127.0.0.1;host="test";proto=http'
    assert sent.value("x-request-id") == b"mine"
    assert sent.value("via") == b"1.1 edge, 1.1 " + gateway.name


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        (["X-Forwarded-For: 203.0.113.7"], b"203.0.113.7"),
        (["X-Forwarded-For: 203.0.113.7, 10.1.1.1", "X-Real-IP: 198.51.100.1"], b"203.0.113.7"),
        (["X-Forwarded-For: 198.51.100.1, 203.0.113.7", "X-Forwarded-For: 10.1.1.1, 127.0.0.1"], b"203.0.113.7"),
        (["X-Forwarded-For: forged, 203.0.113.7"], b"203.0.113.7"),
        (["X-Forwarded-For: 10.1.1.1, 10.2.2.2"], b"10.1.1.1"),
        (["X-Forwarded-For: 203.0.113.7:4711"], b"203.0.113.7"),
        (["X-Forwarded-For: [2001:db8::7]:4711, 10.1.1.1:80"], b"2001:db8::7"),
        (["X-Forwarded-For: 2001:db8::7"], b"2001:db8::7"),
        (["X-Real-IP: 203.0.113.7"], b"203.0.113.7"),
        ([], b"127.0.0.1"),
    ],
)
async def test_the_real_address_is_the_last_of_the_chain_that_is_no_trusted_proxy(
    gateway: Gateway, fields: list[str], client: bytes
) -> None:
    sent = await forwarded(gateway, get("/", *fields), trusted_proxies=["10.0.0.0/8", "127.0.0.0/8"])
    assert sent.value("x-real-ip") == client


async def test_addresses_of_both_families_are_told_in_the_words_of_rfc_7239() -> None:
    async with upstream() as app, running_gateway(single(app.port), host="::1") as gateway:
        assert (await ask(gateway.address, get(host="shop.test:81"))).status == 200
        assert app.requests[0].value("forwarded") == b'for="[::1]";host="shop.test:81";proto=http'
        assert app.requests[0].value("x-real-ip") == b"::1"
        assert (await ask(gateway.address, get(version="HTTP/1.0", host=None))).status == 200
        assert app.requests[1].value("forwarded") == b'for="[::1]";proto=http'


async def test_a_connection_field_cannot_take_away_what_the_gateway_says(gateway: Gateway) -> None:
    names = "x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-real-ip, forwarded, x-request-id, x-mine"
    names += ", traceparent, via"
    for trusted in ([], ["127.0.0.0/8"]):
        message = get("/", f"Connection: {names}", "X-Mine: 1")
        sent = await forwarded(gateway, message, trusted_proxies=trusted)
        assert {
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-real-ip",
            "forwarded",
            "x-request-id",
            "traceparent",
            "via",
        } <= set(sent.names())
        assert "x-mine" not in sent.names()


async def test_the_fields_of_one_request_do_not_leak_into_the_next_of_its_connection(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for host in ("one.test", "two.test", "one.test"):
                await client.ask(get("/", "Via: 1.0 x" if host == "two.test" else "X-A: 1", host=host))
        assert [message.value("x-forwarded-host") for message in app.requests] == [
            b"one.test",
            b"two.test",
            b"one.test",
        ]
        assert [message.values("via") for message in app.requests] == [
            [b"1.1 " + gateway.name],
            [b"1.0 x", b"1.1 " + gateway.name],
            [b"1.1 " + gateway.name],
        ]
        assert len({message.value("x-request-id") for message in app.requests}) == 3


async def test_a_trace_is_continued_with_a_span_of_our_own(gateway: Gateway) -> None:
    for flags in ("00", "01"):
        given = f"00-{TRACE}-{SPAN}-{flags}"
        sent = await forwarded(gateway, get("/", f"traceparent: {given}", "tracestate: a=b"))
        trace = re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-{flags}".encode(), sent.value("traceparent") or b"")
        assert trace
        assert trace[1] != SPAN.encode()
        assert sent.value("tracestate") == b"a=b"


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "garbage",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-x",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
async def test_a_trace_that_is_none_is_replaced_by_a_new_one(gateway: Gateway, given: str | None) -> None:
    sent = await forwarded(gateway, get("/", *([] if given is None else [f"traceparent: {given}"])))
    trace = re.fullmatch(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-00", sent.value("traceparent") or b"")
    assert trace
    assert trace[1] not in (TRACE.encode(), b"0" * 32)
    assert trace[2] not in (SPAN.encode(), b"0" * 16)
    assert sent.value("x-request-id") == trace[1]


@pytest.mark.parametrize(
    ("target", "fields", "kept_target", "kept"),
    [
        ("/", [f"Authorization: Bearer {ADMIN}"], "/", []),
        ("/", [f"authorization: bearer   {JOIN}"], "/", []),
        ("/", [f"AUTHORIZATION: {ADMIN}", "Authorization: Bearer mine"], "/", [b"Bearer mine"]),
        ("/", [f"X-Consul-Token: {ADMIN}"], "/", []),
        ("/", ["X-Consul-Token: anything"], "/", []),
        ("/", ["X-Toska-Caller: orders"], "/", []),
        ("/", [f"X-Api-Key: {JOIN}"], "/", []),
        ("/", [f"Cookie: a=1; toska_session={JOIN}; b=2"], "/", [b"a=1; b=2"]),
        ("/", ["Cookie: toska_affinity=x"], "/", []),
        ("/", [f"Cookie: token={ADMIN}; a=1"], "/", [b"a=1"]),
        ("/", ["Cookie: a=1;toska_x=2", "cookie: toska_y=3", "Cookie: b=2"], "/", [b"a=1", b"b=2"]),
        (f"/?token={ADMIN}", [], "/", []),
        (f"/?a=1&token={ADMIN}&b=2", [], "/?a=1&b=2", []),
        (f"/?{ADMIN}", [], "/", []),
        ("/?a=1&b=%20", ["Cookie: a=1; b=2", "Authorization: Bearer x"], "/?a=1&b=%20", [b"a=1; b=2", b"Bearer x"]),
    ],
)
async def test_tokens_of_the_mesh_do_not_reach_users_services(
    gateway: Gateway, target: str, fields: list[str], kept_target: str, kept: list[bytes]
) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for version in ("HTTP/1.1", "HTTP/1.1"):
                assert (await client.ask(get(target, *fields, version=version))).status == 200
        for sent in app.requests:
            assert b"toska_" not in sent.head
            assert sent.target == kept_target
            names = ("authorization", "cookie", "x-api-key", "x-consul-token", "x-toska-caller")
            assert [value for name, value in sent.fields if name.decode() in names] == kept


async def test_tokens_reach_the_meshs_own_services_and_callers_do_not(gateway: Gateway) -> None:
    tokens = [f"Authorization: Bearer {ADMIN}", f"X-Consul-Token: {JOIN}", f"Cookie: toska_session={JOIN}; a=1"]
    async with upstream() as registry, upstream() as app:
        document = {
            "clusters": {"app": cluster(app.port)},
            "routes": [route("mesh", "/mesh"), route("app", "/app")],
        }
        await gateway.serve(document)
        snapshot = with_mesh_cluster(document, "toska-discovery", registry.port, route="mesh")
        await gateway.supervisor.apply(snapshot)
        for prefix in ("mesh", "app", "mesh"):
            await ask(gateway.address, get(f"/{prefix}?token={ADMIN}", *tokens, "X-Toska-Caller: x"))
        assert b"toska_" not in app.received
        for sent in registry.requests:
            assert sent.target == f"/mesh?token={ADMIN}"
            assert sent.value("authorization") == f"Bearer {ADMIN}".encode()
            assert sent.value("x-consul-token") == JOIN.encode()
            assert sent.value("cookie") == f"toska_session={JOIN}; a=1".encode()
            assert sent.value("x-toska-caller") is None
        assert len(registry.requests) == 2


async def test_only_clusters_of_the_mesh_may_lead_to_its_management_addresses() -> None:
    async with upstream() as management:
        document = {"clusters": {"app": cluster(management.port)}, "routes": [route("mesh", "/mesh"), route("app")]}
        async with running_gateway(document, management=[management.address]) as gateway:
            answer = await ask(gateway.address, request("POST", body=b"x"))
            assert (answer.status, answer.error) == (502, "target-refused")
            assert management.conversations == []
            snapshot = with_mesh_cluster(document, "toska-router", management.port, route="mesh")
            await gateway.supervisor.apply(snapshot)
            assert (await ask(gateway.address, get("/mesh"))).status == 200
            assert (await ask(gateway.address, get("/other"))).error == "target-refused"


@pytest.mark.parametrize(("client", "seen"), [("127.0.0.1", b"127.0.0.1"), ("::1", b"::1")])
async def test_a_listener_for_both_families_knows_ipv4_clients_by_their_ipv4_address(client: str, seen: bytes) -> None:
    async with upstream() as app:
        document = {**single(app.port), "server": {"trusted_proxies": ["127.0.0.0/8", "::1/128"]}}
        async with running_gateway(document, host="::") as gateway:
            address = (client, gateway.address[1])
            assert (await ask(address, get("/", "X-Forwarded-For: 10.9.9.9"))).status == 200
        assert app.requests[0].value("x-forwarded-for") == b"10.9.9.9, " + seen
