"""Where redirects lead: with captures, another prefix, scheme or host, and never where the client chose."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_gateway.worker.edge.rewriting import Redirect
from toska_gateway.worker.forwarding import Forwarding
from toska_gateway.worker.http1 import BadMessage, read_request
from toska_tests.gateways import Gateway, idle_plane
from toska_tests.raw_http import ask, get, request

HOST = "shop.example:8080"


def one_route(match: dict[str, Any], redirect: dict[str, Any]) -> dict[str, Any]:
    return {"routes": [{"name": "one", "match": match, "redirect": redirect}]}


@pytest.mark.parametrize(
    ("match", "redirect", "asked", "location"),
    [
        ({"path": "/old"}, {"to": "/new"}, "/old?a=1", "/new?a=1"),
        ({"path": "/old"}, {"to": "/new?b=2"}, "/old?a=1", "/new?b=2&a=1"),
        ({"path": "/old"}, {"to": "/new?b=2#part"}, "/old?a=1", "/new?b=2&a=1#part"),
        ({"path": "/old"}, {"to": "/new#part"}, "/old?a=1", "/new?a=1#part"),
        ({"path": "/old"}, {"to": "/new", "keep_query": False}, "/old?a=1", "/new"),
        ({"path": "/old"}, {"to": "https://x.example"}, "/old?a=1", "https://x.example?a=1"),
        ({"path_prefix": "/a"}, {"prefix": "/b"}, "/a/c%20d/?x", "/b/c%20d/?x"),
        ({"path_prefix": "/a"}, {"prefix": "/"}, "/a", "/"),
        ({"path_prefix": "/a"}, {"prefix": "/"}, "/a/b", "/b"),
        ({"path_prefix": "/"}, {"scheme": "https"}, "/a/b?x=1", "https://shop.example/a/b?x=1"),
        ({"path_prefix": "/"}, {"scheme": "https", "host": "x.example:8443"}, "/a", "https://x.example:8443/a"),
        ({"path_prefix": "/"}, {"host": "x.example"}, "/a", "http://x.example/a"),
        ({"path_regex": r"/u/(\d+)(?:/(.*))?"}, {"to": r"/users/\1/\2"}, "/u/7/a%20b?q", "/users/7/a%20b?q"),
        ({"path_regex": r"/u/(?P<id>.+)"}, {"to": r"https://x.example/?id=\g<id>"}, "/u/a%26b/%C3%A9", None),
    ],
)
async def test_a_redirect_leads_where_it_says(
    gateway: Gateway, match: dict[str, Any], redirect: dict[str, Any], asked: str, location: str | None
) -> None:
    await gateway.serve(one_route(match, redirect))
    answer = await ask(gateway.address, get(asked, host=HOST))
    assert answer.status == 308
    assert answer.value("location") == (location or "https://x.example/?id=a%26b%2F%C3%A9").encode()


async def test_behind_a_proxy_that_speaks_tls_the_scheme_is_the_clients(gateway: Gateway) -> None:
    document = one_route({"path_prefix": "/"}, {"host": "x.example"})
    await gateway.serve({**document, "server": {"trusted_proxies": ["127.0.0.1/32"]}})
    answer = await ask(gateway.address, get("/a", "X-Forwarded-Proto: https"))
    assert answer.value("location") == b"https://x.example/a"


async def test_who_names_no_host_cannot_be_sent_to_another_scheme(gateway: Gateway) -> None:
    await gateway.serve(one_route({"path_prefix": "/"}, {"scheme": "https"}))
    answer = await ask(gateway.address, get("/a", version="HTTP/1.0", host=None))
    assert (answer.status, answer.error) == (400, "bad-host")


async def test_a_body_is_not_taken_for_the_next_request(gateway: Gateway) -> None:
    await gateway.serve(one_route({"path_prefix": "/"}, {"to": "/new", "status": 303}))
    answer = await ask(gateway.address, request("POST", "/a", body=b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n"))
    assert (answer.status, answer.value("connection")) == (303, b"close")


PIECES = st.lists(st.sampled_from(["a", "x", ".", "..", "%2F", "/", "//", "evil.example", "%0d", ":", "@", "%5C", "é"]))


@given(pieces=PIECES, to=st.sampled_from([r"/\1", r"/b\1", r"/\1/c", r"https://x.example/\1", r"/c?x=\1"]))
def test_what_a_client_sends_never_decides_the_host(pieces: list[str], to: str) -> None:
    written = ("/" + "".join(pieces)).replace("é", "%C3%A9")
    try:
        head = read_request(f"GET {written} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 100, 8192)
        settings = {"to": to, "prefix": None, "scheme": None, "host": None, "keep_query": True, "status": 308}
        redirect = Redirect(settings, {"path_regex": r"/?x?(.*)"})
        location = redirect.location(head, Forwarding(idle_plane(), "127.0.0.1", b"http"))
    except BadMessage:
        return
    fixed = to.partition("\\")[0].encode()
    assert location.startswith(fixed)
    assert not location.startswith((b"//", b"/\\"))
    assert location.isascii()
    assert not set(location) & set(b' \r\n\t\\"<>')
