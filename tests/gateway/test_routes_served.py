"""What routes do to requests: prefixes, edits of headers, splits, direct answers, and what where none matches."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from toska_tests.gateways import Gateway, cluster, route
from toska_tests.raw_http import OK, answering, ask, connected, get, request, response, upstream
from toska_tests.waiting import wait_until


async def test_a_stripped_prefix_is_sent_as_a_field(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(
            {
                "clusters": {"app": cluster(app.port)},
                "routes": [
                    route("a", "/orders", strip_prefix=True),
                    route("b", "/café", strip_prefix=True),
                    route("c", "/", strip_prefix=True),
                    route("d", "/kept"),
                ],
            }
        )
        for target, sent, prefix in (
            ("/orders", "/", b"/orders"),
            ("/orders/", "/", b"/orders"),
            ("/orders/1?a=/orders", "/1?a=/orders", b"/orders"),
            ("/orders//orders/x", "/orders/x", b"/orders"),
            ("/x/../orders/1", "/1", b"/orders"),
            ("/caf%C3%A9/a%20b", "/a%20b", b"/caf%C3%A9"),
            ("/ordersx", "/ordersx", None),
            ("/kept/1", "/kept/1", None),
        ):
            assert (await ask(gateway.address, get(target, "X-Forwarded-Prefix: /evil"))).status == 200
            assert (app.requests[-1].target, app.requests[-1].value("x-forwarded-prefix")) == (sent, prefix)


async def test_prefixes_of_trusted_proxies_go_before_ours(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(
            {
                "server": {"trusted_proxies": ["127.0.0.1/32"]},
                "clusters": {"app": cluster(app.port)},
                "routes": [route("a", "/orders", strip_prefix=True)],
            }
        )
        await ask(gateway.address, get("/orders/1", "X-Forwarded-Prefix: /shop/"))
        await ask(gateway.address, get("/orders/1"))
        assert [message.value("x-forwarded-prefix") for message in app.requests] == [b"/shop/orders", b"/orders"]


async def test_headers_are_edited_on_the_way_there_and_back(gateway: Gateway) -> None:
    rules = {
        "request": {"set": {"x-set": "1", "authorization": "Basic x"}, "add": {"x-add": "2"}, "remove": ["x-gone"]},
        "response": {"set": {"server": "toska"}, "add": {"set-cookie": "c=3"}, "remove": ["x-powered-by"]},
    }
    reply = response(200, "Server: x", "Set-Cookie: a=1", "X-Powered-By: y", body=b"ok")
    async with upstream(reply) as app:
        document = {"clusters": {"app": cluster(app.port)}, "routes": [route("r", policies={"headers": rules})]}
        await gateway.serve(document)
        async with connected(gateway.address) as client:
            for _ in range(2):
                fields = ("X-Set: 9", "x-SET: 8", "X-Add: 1", "X-Gone: 1", "Authorization: Bearer y", "X-Kept: 1")
                answer = await client.ask(get("/", *fields))
                assert answer.values("server") == [b"toska"]
                assert answer.values("set-cookie") == [b"a=1", b"c=3"]
                assert answer.value("x-powered-by") is None
        for sent in app.requests:
            assert sent.values("x-set") == [b"1"]
            assert sent.values("authorization") == [b"Basic x"]
            assert sent.values("x-add") == [b"1", b"2"]
            assert (sent.value("x-gone"), sent.value("x-kept")) == (None, b"1")


async def test_a_split_shares_requests_by_weight(gateway: Gateway) -> None:
    async with upstream(answering(OK)) as stable, upstream(answering(OK)) as canary, upstream() as off:
        to = [{"cluster": "a", "weight": 4}, {"cluster": "b", "weight": 1}, {"cluster": "c", "weight": 0}]
        clusters = {"a": cluster(stable.port), "b": cluster(canary.port), "c": cluster(off.port)}
        await gateway.serve({"clusters": clusters, "routes": [route("r", to=to)]})
        async with connected(gateway.address) as client:
            for _ in range(600):
                assert (await client.ask(get())).status == 200
        assert len(stable.requests) + len(canary.requests) == 600
        assert 70 < len(canary.requests) < 170  # five standard deviations about 120
        assert off.conversations == []


async def test_endpoints_take_turns(gateway: Gateway) -> None:
    async with upstream() as one, upstream() as other:
        endpoints = cluster(one.port, other.port, balancer="round_robin")
        endpoints["endpoints"][0]["weight"] = 3
        await gateway.serve({"clusters": {"app": endpoints}, "routes": [route("r")]})
        async with connected(gateway.address) as client:
            for _ in range(40):
                await client.ask(get())
        assert (len(one.requests), len(other.requests)) == (30, 10)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_takes_the_query_along(gateway: Gateway, status: int) -> None:
    redirects = [
        {"name": "path", "match": {"path": "/old"}, "redirect": {"to": "/new", "status": status}},
        {"name": "url", "match": {"path": "/far"}, "redirect": {"to": "https://far.test/?a=1", "status": status}},
    ]
    await gateway.serve({"routes": redirects})
    async with connected(gateway.address) as client:
        for target, location in (
            ("/old", b"/new"),
            ("/old?b=%20c", b"/new?b=%20c"),
            ("/far", b"https://far.test/?a=1"),
            ("/far?b=2", b"https://far.test/?a=1&b=2"),
        ):
            answer = await client.ask(get(target))
            assert (answer.status, answer.value("location"), answer.body) == (status, location, b"")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_direct_answer_is_given_as_it_is_written(gateway: Gateway, method: str) -> None:
    await gateway.serve({"routes": [answer_of(body="größer\n", content_type="text/html; charset=utf-8")]})
    async with connected(gateway.address) as client:
        for _ in range(2):
            answer = await client.ask(request(method), to=method)
            assert (answer.status, answer.value("content-type")) == (200, b"text/html; charset=utf-8")
            assert answer.value("content-length") == b"9"
            assert answer.body == (b"" if method == "HEAD" else "größer\n".encode())
            assert answer.error is None


def answer_of(**respond: Any) -> dict[str, Any]:
    """A route that answers everything."""
    return {"name": "answer", "match": {"path_prefix": "/"}, "respond": respond}


@pytest.mark.parametrize("status", [204, 304])
async def test_a_direct_answer_whose_status_has_no_body_has_none(gateway: Gateway, status: int) -> None:
    await gateway.serve({"routes": [answer_of(status=status, body="never sent")]})
    async with connected(gateway.address) as client:
        for _ in range(2):
            answer = await client.ask(get())
            assert (answer.status, answer.body) == (status, b"")
            assert answer.value("content-length") is None


async def test_the_body_of_a_request_that_is_answered_directly_is_not_taken_for_the_next(gateway: Gateway) -> None:
    await gateway.serve({"routes": [answer_of(body="mine")]})
    async with connected(gateway.address) as client:
        client.post(request("POST", body=get("/smuggled")))
        answer = await client.response()
        assert (answer.body, answer.value("connection")) == (b"mine", b"close")
        assert await client.is_closed()


async def test_what_no_route_takes_is_not_found_and_other_methods_are_named(gateway: Gateway) -> None:
    async with upstream() as app:
        routes = [
            {"name": "r", "match": {"path": "/orders", "methods": ["GET", "POST"]}, "to": "app"},
            {"name": "s", "match": {"path_prefix": "/orders", "methods": ["DELETE"]}, "to": "app"},
            {"name": "t", "match": {"path_prefix": "/orders", "headers": {"x-beta": "1"}}, "to": "app"},
        ]
        await gateway.serve({"clusters": {"app": cluster(app.port)}, "routes": routes})
        async with connected(gateway.address) as client:
            for method, target, status, allow in (
                ("GET", "/orders", 200, None),
                ("PUT", "/orders", 405, b"DELETE, GET, POST"),
                ("GET", "/orders/1", 405, b"DELETE"),
                ("DELETE", "/orders/1", 200, None),
                ("GET", "/else", 404, None),
                ("HEAD", "/else", 404, None),
            ):
                answer = await client.ask(request(method, target), to=method)
                assert (answer.status, answer.value("allow")) == (status, allow)
                assert answer.error == {200: None, 404: "no-route", 405: "method-not-allowed"}[status]
            assert (await client.ask(get("/orders/1", "X-Beta: 1"))).status == 200
        assert await gateway.metric("requests_total", route="(none)", status="405") >= 2


async def test_hosts_choose_routes(gateway: Gateway) -> None:
    async with upstream(response(200, body=b"exact")) as exact, upstream(response(200, body=b"below")) as below:
        routes = [
            {"name": "exact", "match": {"host": "shop.test", "path_prefix": "/"}, "to": "exact"},
            {"name": "below", "match": {"host": "*.shop.test", "path_prefix": "/"}, "to": "below"},
        ]
        clusters = {"exact": cluster(exact.port), "below": cluster(below.port)}
        await gateway.serve({"clusters": clusters, "routes": routes})
        for host, body in (("shop.test", b"exact"), ("SHOP.test:81", b"exact"), ("a.b.shop.test", b"below")):
            assert (await ask(gateway.address, get(host=host))).body == body
        # What is forwarded is the authority of the target, so that is also what chooses.
        assert (await ask(gateway.address, get("http://a.shop.test/", host="shop.test"))).body == b"below"
        assert (await ask(gateway.address, get(host="test"))).status == 404


async def test_a_path_with_a_query_condition_in_any_alphabet_is_served(gateway: Gateway) -> None:
    async with upstream() as app:
        routes = [{"name": "q", "match": {"path_prefix": "/", "query": {"v": "2"}}, "to": "app"}]
        await gateway.serve({"clusters": {"app": cluster(app.port)}, "routes": routes})
        async with connected(gateway.address) as client:
            for query, status in (("?v=2", 200), ("?u=%C3%A9&v=2", 200), ("?v=%C3%A9", 404), ("?%FF", 404), ("", 404)):
                assert (await client.ask(get("/" + query))).status == status


async def test_new_routing_takes_over_without_losing_a_request(gateway: Gateway) -> None:

    counts: Counter[bytes] = Counter()
    stop = asyncio.Event()

    async def load() -> None:
        async with connected(gateway.address) as client:
            while not stop.is_set():
                answer = await client.ask(get())
                assert answer.status == 200
                counts[answer.body] += 1

    async with upstream(response(200, body=b"one")) as one, upstream(response(200, body=b"two")) as two:
        ports = (one.port, two.port)
        await gateway.serve({"clusters": {"app": cluster(ports[0])}, "routes": [route("r0")]})
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load())
            for number in range(30):
                await gateway.serve(
                    {
                        "clusters": {"app": cluster(ports[number % 2]), f"c{number}": cluster(*ports)},
                        "routes": [route(f"r{number}", to="app" if number % 3 else f"c{number}")],
                    }
                )
                seen = sum(counts.values())
                await wait_until(lambda seen=seen: sum(counts.values()) > seen + 10, every=0.001)
            stop.set()
    assert set(counts) == {b"one", b"two"}
