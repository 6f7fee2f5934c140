"""What an upstream is told: lines, fields, and who asked."""

import re
from collections.abc import Sequence

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Ask, Pipeline
from toska_tests.gateways import route
from toska_tests.raw_http import get, request, response

_TRACE = "0af7651916cd43dd8448eb211c80319c"
_HOPS_BACK = "Connection: keep-alive, x-mine", "Keep-Alive: timeout=9", "X-Mine: 1", "Proxy-Authenticate: Basic"
_HOPS = (
    "Connection: close, x-mine",
    "X-Mine: 1",
    "Keep-Alive: 9",
    "TE: gzip",
    "Proxy-Connection: x",
    "Proxy-Authorization: Basic x",
    "X-Kept: 1",
)
_FORGED = (
    "X-Forwarded-For: 10.9.9.9",
    "X-Forwarded-Proto: https",
    "X-Real-IP: 10.9.9.9",
    "Forwarded: for=10.9.9.9",
    "X-Forwarded-Prefix: /evil",
    "X-Request-Id: mine",
)

_LETTERS = b"100% %REQ(authorization)% {} {Path} %%"
_SAYING = {
    "headers": {
        "request": {
            "set": {"x-said": "{method} {scheme} {host} {path} {route} {client_ip}"},
            "add": {"x-letters": _LETTERS.decode()},
        },
        "response": {"set": {"x-letters": _LETTERS.decode()}},
    }
}

CASES: Sequence[Case] = (
    Case(
        "method, target and query arrive as they were sent",
        [
            *(
                Ask(request(method, "/a?b=c&&d=%20e"), by="a", method=method, target="/a?b=c&&d=%20e")
                for method in ("GET", "DELETE", "OPTIONS", "PATCH")
            ),
            Ask(get("/caf%C3%A9/a%20b?x=%2F"), target="/caf%C3%A9/a%20b?x=%2F"),
        ],
    ),
    Case(
        "the host arrives as it was sent",
        [Ask(get(host="shop.test:81"), sees={"host": b"shop.test:81", "x-forwarded-host": b"shop.test:81"})],
    ),
    Case(
        "fields of the client arrive with their values, in their number and order",
        [
            Ask(
                get("/", "X-A: 1", "x-a: 2", "Cookie: a=1", "X-Bytes: \xe9", "X-Empty:", "Authorization: Basic x"),
                sees={
                    "x-a": (b"1", b"2"),
                    "cookie": b"a=1",
                    "x-bytes": b"\xe9",
                    "x-empty": b"",
                    "authorization": b"Basic x",
                },
            )
        ],
    ),
    Case(
        "fields of one hop are not passed on to the upstream",
        [
            Ask(
                get("/", *_HOPS),
                sees={"x-kept": b"1"}
                | dict.fromkeys(("x-mine", "keep-alive", "te", "proxy-connection", "proxy-authorization")),
                closes=True,
            )
        ],
    ),
    Case(
        "fields of one hop are not passed on to the client",
        [Ask(get(), gets={"x-mine": None, "keep-alive": None, "x-kept": b"1"})],
        upstreams={"a": response(200, *_HOPS_BACK, "X-Kept: 1")},
    ),
    Case(
        "the upstream is told who asked",
        [
            Ask(
                get(),
                sees={
                    "x-forwarded-for": b"127.0.0.1",
                    "x-forwarded-proto": b"http",
                    "x-forwarded-host": b"test",
                    "x-real-ip": b"127.0.0.1",
                    "forwarded": re.compile(rb'for=127\.0\.0\.1;host="?test"?;proto=http'),
                    "via": re.compile(rb"1\.1 \S+"),
                },
            )
        ],
    ),
    Case(
        "what a stranger says about who asked is not believed",
        [
            Ask(
                get("/", *_FORGED),
                sees={
                    "x-forwarded-for": b"127.0.0.1",
                    "x-forwarded-proto": b"http",
                    "x-real-ip": b"127.0.0.1",
                    "x-forwarded-prefix": None,
                    "x-request-id": re.compile(rb"(?!mine$).+"),
                },
            )
        ],
    ),
    Case(
        "what a trusted proxy says about who asked is continued",
        [
            Ask(
                get("/", "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "X-Request-Id: mine"),
                sees={
                    "x-forwarded-for": re.compile(rb"203\.0\.113\.7, ?127\.0\.0\.1"),
                    "x-forwarded-proto": b"https",
                    "x-request-id": b"mine",
                    "x-real-ip": b"203.0.113.7",
                },
            )
        ],
        server={"trusted_proxies": ["127.0.0.0/8"]},
    ),
    Case(
        "a trace goes on, and one is begun where there is none",
        [
            Ask(
                get("/", f"traceparent: 00-{_TRACE}-b7ad6b7169203331-01", "tracestate: a=1"),
                sees={"traceparent": re.compile(f"00-{_TRACE}-[0-9a-f]{{16}}-01".encode()), "tracestate": b"a=1"},
            ),
            Ask(get(), sees={"traceparent": re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")}),
        ],
    ),
    Case(
        "a prefix that is stripped is told as a field",
        [
            Ask(get("/orders/1?a"), target="/1?a", sees={"x-forwarded-prefix": b"/orders"}),
            Ask(get("/orders"), target="/", sees={"x-forwarded-prefix": b"/orders"}),
            Ask(get("/x/../orders/a%20b"), target="/a%20b", sees={"x-forwarded-prefix": b"/orders"}),
        ],
        [route("orders", "/orders", "a", strip_prefix=True)],
    ),
    Case(
        "headers are removed, set and added on the way there",
        [
            Ask(
                get("/", "X-Set: 9", "x-SET: 8", "X-Add: 1", "X-Gone: 1"),
                sees={"x-set": b"1", "x-add": (b"1", b"2"), "x-gone": None},
            )
        ],
        policies(headers={"request": {"set": {"x-set": "1"}, "add": {"x-add": "2"}, "remove": ["x-gone"]}}),
    ),
    Case(
        "headers are removed, set and added on the way back",
        [Ask(get(), gets={"server": b"mesh", "set-cookie": (b"a=1", b"c=3"), "x-powered-by": None})],
        policies(
            headers={"response": {"set": {"server": "mesh"}, "add": {"set-cookie": "c=3"}, "remove": ["x-powered-by"]}}
        ),
        upstreams={"a": response(200, "Server: x", "Set-Cookie: a=1", "X-Powered-By: y", body=b"ok")},
    ),
    Case(
        "words in braces stand for the request, and nothing else is more than letters",
        [
            Ask(
                get("/orders/a%20b?secret=1", "Authorization: Bearer t", "X-Envoy-Original-Path: /x", host="shop.test"),
                sees={"x-said": b"GET http shop.test /orders/a%20b orders 127.0.0.1", "x-letters": _LETTERS},
                gets={"x-letters": _LETTERS},
            ),
            Ask(get("/a%20b?secret=1", "X-Envoy-Original-Path: /x"), gets={"x-said": b"/a%20b plain"}),
        ],
        [
            route("orders", "/orders", "a", strip_prefix=True, policies=_SAYING),
            route("plain", "/", "a", policies={"headers": {"response": {"set": {"x-said": "{path} {route}"}}}}),
        ],
    ),
    Case(
        "requests of one connection are answered in their order",
        [Pipeline((get("/1"), get("/2"), get("/3")), (b"one", b"two", b"one"))],
        [route("one", "/", "a"), {"name": "two", "match": {"path": "/2"}, "to": "b"}],
        upstreams={"a": response(200, body=b"one"), "b": response(200, body=b"two")},
    ),
    Case(
        "an old client is answered in a way it understands",
        [
            Ask(get(version="HTTP/1.0"), gets={"transfer-encoding": None}, body=b"hello", closes=True),
            Ask(
                get("/", "Connection: keep-alive", version="HTTP/1.0", host=None),
                gets={"transfer-encoding": None},
                body=b"hello",
            ),
        ],
        upstreams={"a": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
    ),
    Case(
        "a client that wants its connection closed gets its answer first",
        [Ask(get("/", "Connection: close"), by="a", body=b"ok", gets={"connection": b"close"}, closes=True)],
    ),
)
