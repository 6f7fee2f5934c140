"""Escaped slashes, OPTIONS of the server as a whole, and who is named in Via: what routes see and upstreams get."""

import pytest
from toska_tests.gateways import Gateway, cluster, route, running_gateway, single
from toska_tests.raw_http import OK, ask, connected, get, request, response, upstream

KEEP = {"escaped_slashes": "keep"}


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/group%2fproject/x", "/group%2Fproject/x"),
        ("/a/%5Cb", "/a/%5Cb"),
        ("/a%2F%2Fb?c=%2f", "/a%2F%2Fb?c=%2f"),
        ("/a%252fb", "/a%252fb"),
        ("//x/../a%2f", "/a%2F"),
    ],
)
async def test_a_route_that_keeps_escaped_slashes_passes_them_on_escaped(
    gateway: Gateway, target: str, sent: str
) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port, policies=KEEP))
        assert (await ask(gateway.address, get(target))).status == 200
        assert app.requests[0].target == sent


async def test_an_escaped_slash_does_not_separate_what_routes_match(gateway: Gateway) -> None:
    async with upstream(response(200, body=b"api")) as api, upstream(response(200, body=b"rest")) as rest:
        routes = [route("api", "/api", "api", policies=KEEP, strip_prefix=True), route("rest", "/", "rest")]
        await gateway.serve({"clusters": {"api": cluster(api.port), "rest": cluster(rest.port)}, "routes": routes})
        assert (await ask(gateway.address, get("/api/a%2Fb"))).body == b"api"
        assert api.requests[0].target == "/a%2Fb"
        for target in ("/api%2Fa", "/x%2Fy"):  # both are the rest's, which takes none
            assert (await ask(gateway.address, get(target))).status == 400
        assert rest.requests == []


@pytest.mark.parametrize(
    "target", ["/%2Fadmin/x", "/admin%2Fx", "/x%2Fadmin", "/a/..%2Fadmin", "/%5cadmin", "/admin%5c"]
)
async def test_escaped_slashes_are_no_way_round_the_route_that_guards_a_path(gateway: Gateway, target: str) -> None:
    async with upstream() as app:
        guard = {"name": "guard", "match": {"path_prefix": "/admin"}, "respond": {"status": 403}}
        exact = {"name": "exact", "match": {"path": "/x/admin"}, "respond": {"status": 403}}
        document = {"clusters": {"app": cluster(app.port)}, "routes": [guard, exact, route("open", "/", policies=KEEP)]}
        await gateway.serve(document)
        answer = await ask(gateway.address, get(target))
        assert (answer.status, answer.error) == (400, "bad-target")
        assert app.conversations == []
        assert (await ask(gateway.address, get("/admins%2Fx"))).status == 200


@pytest.mark.parametrize("document", [{}, {"routes": [{"name": "r", "match": {"path_prefix": "/"}, "respond": {}}]}])
async def test_an_escaped_slash_that_no_route_keeps_is_a_bad_request(
    gateway: Gateway, document: dict[str, object]
) -> None:
    await gateway.serve(document)
    async with connected(gateway.address) as client:
        assert (await client.ask(get("/a%2Fb"))).error == "bad-target"
        assert await client.is_closed()


ABOUT_THE_SERVER = [request("OPTIONS", "*"), request("OPTIONS", "http://test")]


@pytest.mark.parametrize("message", ABOUT_THE_SERVER, ids=["asterisk", "absolute"])
async def test_options_of_the_server_are_answered_by_the_gateway_itself(gateway: Gateway, message: bytes) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        async with connected(gateway.address) as client:
            for _ in range(2):
                answer = await client.ask(message)
                assert (answer.status, answer.body) == (204, b"")
                assert {b"GET", b"OPTIONS"} <= set((answer.value("allow") or b"").split(b", "))
        assert app.conversations == []


@pytest.mark.parametrize("message", ABOUT_THE_SERVER, ids=["asterisk", "absolute"])
async def test_options_of_the_server_are_forwarded_where_a_route_says_so(gateway: Gateway, message: bytes) -> None:
    async with upstream() as app:
        about = {"name": "about", "match": {"path": "*"}, "to": "app"}
        await gateway.serve({"clusters": {"app": cluster(app.port)}, "routes": [about]})
        assert (await ask(gateway.address, message)).body == b"ok"
        assert app.requests[0].start == b"OPTIONS * HTTP/1.1"
        assert app.requests[0].value("host") == b"test"


async def test_options_of_a_path_are_the_upstreams(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        for target in ("/", "/a", "http://test/", "http://test?a"):
            assert (await ask(gateway.address, request("OPTIONS", target))).body == b"ok"
        assert [message.target for message in app.requests] == ["/", "/a", "/", "/?a"]


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_an_asterisk_is_no_path(gateway: Gateway, method: str) -> None:
    async with upstream() as app:
        await gateway.serve(single(app.port))
        for target in ("*", "**", "*/"):
            if (method, target) != ("OPTIONS", "*"):
                assert (await ask(gateway.address, request(method, target))).status == 400
        assert (await ask(gateway.address, request(method, "/*"))).status == 200
        assert app.requests[0].target == "/*"


async def test_the_gateway_signs_what_passes_both_ways_with_the_version_it_came_in(gateway: Gateway) -> None:
    async with upstream(b"HTTP/1.0 200 OK\r\nvia: 1.1 cache\r\ncontent-length: 2\r\n\r\nok") as old, upstream() as new:
        await gateway.serve(
            {"clusters": {"old": cluster(old.port), "new": cluster(new.port)},
             "routes": [route("old", "/old", "old"), route("new", "/", "new")]}
        )  # fmt: skip
        for version in ("1.0", "1.1", "1.0"):
            fields = ("connection: keep-alive",)
            answer = await ask(gateway.address, get("/old", *fields, version=f"HTTP/{version}"))
            assert answer.values("via") == [b"1.1 cache", b"1.0 " + gateway.name]
            assert old.requests[-1].values("via") == [version.encode() + b" " + gateway.name]
            answer = await ask(gateway.address, get("/", *fields, version=f"HTTP/{version}"))
            assert answer.values("via") == [b"1.1 " + gateway.name]


async def test_a_request_that_comes_round_again_is_a_detected_loop(gateway: Gateway) -> None:
    async with running_gateway() as other:
        for first, second in ((gateway, gateway), (gateway, other)):
            await first.serve(single(second.address[1]))
            await second.serve(single(first.address[1]))
            async with connected(first.address) as client:
                for _ in range(2):
                    assert (await client.ask(get())).status == 508
            await first.until_quiet()
        assert await gateway.metric("requests_total", status="508") >= 2


async def test_a_chain_of_gateways_and_a_name_in_a_comment_are_no_loop(gateway: Gateway) -> None:
    async with upstream(OK) as app, running_gateway(single(app.port)) as inner:
        await gateway.serve(single(inner.address[1]))
        name = gateway.name.decode()
        for via in ("1.1 toska", f"1.1 edge ({name})", f"1.1 {name}x", "1.1 toska-00000000, 1.0 edge"):
            assert (await ask(gateway.address, get("/", f"Via: {via}"))).body == b"ok"
            chain = b"%b, 1.1 %b, 1.1 %b" % (via.encode(), gateway.name, inner.name)
            assert b", ".join(app.requests[-1].values("via")) == chain
        for via in (f"1.1 {name}", f"1.0 a, HTTP/1.1 {name} (x)", f"1.1\t{name}"):
            answer = await ask(gateway.address, get("/", f"Via: {via}"))
            assert (answer.status, answer.error) == (508, "loop-detected")
