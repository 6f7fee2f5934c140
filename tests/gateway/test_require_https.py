"""Routes over HTTPS only: who came over plain HTTP is sent to https or away, by what the client's own way was."""

from pathlib import Path
from typing import Any

import pytest
from toska_tests.certificates import Authority
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.raw_http import ask, get, request, upstream

OVER_TLS = "X-Forwarded-Proto: https"


async def serve(gateway: Gateway, port: int, rule: Any, *, trusted: bool = True, **policies: Any) -> None:
    document = single(port, policies={"require_https": rule, **policies})
    server = {"trusted_proxies": ["127.0.0.1/32"]} if trusted else {}
    await gateway.serve({**document, "server": server})


@pytest.mark.parametrize(
    ("rule", "host", "location"),
    [
        (True, "shop.example", b"https://shop.example/a%20b?x=1"),
        (True, "shop.example:8080", b"https://shop.example/a%20b?x=1"),
        (True, "[::1]:8080", b"https://[::1]/a%20b?x=1"),
        ({"port": 8443}, "shop.example:8080", b"https://shop.example:8443/a%20b?x=1"),
    ],
)
async def test_plain_http_is_sent_to_the_same_url_at_https(
    gateway: Gateway, rule: Any, host: str, location: bytes
) -> None:
    async with upstream() as app:
        await serve(gateway, app.port, rule)
        answer = await ask(gateway.address, get("/a%20b?x=1", host=host))
        assert (answer.status, answer.value("location")) == (308, location)
        assert app.requests == []
        assert (await ask(gateway.address, get("/a%20b?x=1", OVER_TLS, host=host))).status == 200


async def test_it_can_be_refused_instead(gateway: Gateway) -> None:
    async with upstream() as app:
        await serve(gateway, app.port, {"otherwise": "refuse"})
        answer = await ask(gateway.address, request("POST", "/", "Authorization: Bearer x", body=b"secret"))
        assert (answer.status, answer.error, answer.value("connection")) == (403, "https-only", b"close")
        assert app.requests == []


async def test_who_cannot_be_sent_anywhere_is_refused(gateway: Gateway) -> None:
    async with upstream() as app:
        await serve(gateway, app.port, True)
        answer = await ask(gateway.address, get("/", version="HTTP/1.0", host=None))
    assert (answer.status, answer.error) == (403, "https-only")


async def test_a_stranger_who_says_that_it_came_over_tls_is_not_believed(gateway: Gateway) -> None:
    async with upstream() as app:
        await serve(gateway, app.port, True, trusted=False)
        assert (await ask(gateway.address, get("/", OVER_TLS))).status == 308


async def test_a_redirect_says_nothing_about_hsts(gateway: Gateway) -> None:
    async with upstream() as app:
        await serve(gateway, app.port, True, security_headers=True)
        answer = await ask(gateway.address, get())
        assert answer.value("strict-transport-security") is None
        assert answer.value("x-content-type-options") == b"nosniff"
        answer = await ask(gateway.address, get("/", OVER_TLS))
        assert answer.value("strict-transport-security") == b"max-age=31536000"


async def test_who_speaks_tls_with_the_gateway_itself_has_come_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with upstream() as app:
        document = single(app.port, policies={"require_https": True, "security_headers": True})
        document["server"]["tls"] = {"certificates": [authority.issue("a", "shop.example").words()]}
        listen = ["http://127.0.0.1:0", "https://127.0.0.1:0"]
        async with running_gateway(document, listen=listen) as gateway:
            plain = await ask(("127.0.0.1", gateway.port(0)), get("/a", host="shop.example"))
            secure = await ask(
                ("127.0.0.1", gateway.port(1)), get("/a"), tls=authority.client_context(), name="shop.example"
            )
    assert (plain.status, plain.value("location")) == (308, b"https://shop.example/a")
    assert plain.value("strict-transport-security") is None
    assert (secure.status, secure.value("strict-transport-security")) == (200, b"max-age=31536000")
