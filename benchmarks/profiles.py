"""What travels in a measurement: the request's head as clients write it, and the response's headers.

`{n}` and `{route}` in a request are filled anew each time by `load.lua`, so that nothing that remembers whole heads
looks better than it will in use.
"""

from dataclasses import dataclass

BODY = b'{"order": "4711", "state": "paid", "total": 129.90, "n": 12}'
CONTENT_TYPE = "application/json"


def route_path(route: int | str) -> str:
    """The prefix of one route of the table, by number."""
    return f"/service-{route:04d}" if isinstance(route, int) else f"/service-{route}"


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of traffic. `varied` requests differ from one another in target and headers; every answer has `body`."""

    name: str
    title: str
    target: str
    request_headers: tuple[tuple[str, str], ...]
    response_headers: tuple[tuple[str, str], ...]
    varied: bool
    body: bytes = BODY

    def request(self, routes: int) -> str:
        """The request as sent; with `varied` every route of the table gets its turn, else the one in the middle."""
        prefix = route_path("{route}" if self.varied else routes // 2)
        lines = [f"GET {prefix}{self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.request_headers)]
        return "\r\n".join(lines) + "\r\n\r\n"

    def sample(self) -> dict[str, str]:
        """The same headers for a single request, to look at the answer before anything is measured."""
        return {name: value.replace("{n}", "0" * 16) for name, value in self.request_headers}


_CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
_SESSION = "session=7d1f0c6e{n}; theme=dark; _ga=GA1.2.1180.1721; consent=all"


def _browser(number: str) -> tuple[tuple[str, str], ...]:
    headers = (
        ("Host", "shop.example"),
        ("Connection", "keep-alive"),
        ("sec-ch-ua", '"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"'),
        ("sec-ch-ua-mobile", "?0"),
        ("sec-ch-ua-platform", '"Linux"'),
        ("User-Agent", _CHROME),
        ("Accept", "application/json, text/plain, */*"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Mode", "cors"),
        ("Sec-Fetch-Dest", "empty"),
        ("Referer", "https://shop.example/orders?page={n}"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-GB,en;q=0.9,fi;q=0.8"),
        ("Cookie", _SESSION),
    )
    return tuple((name, value.replace("{n}", number)) for name, value in headers)


# As if every request came from another browser: whatever can differ from one to the next does.
_STRANGERS = (
    ("Host", "shop.example"),
    ("Connection", "keep-alive"),
    ("sec-ch-ua", '"Chromium";v="{n}", "Google Chrome";v="142", "Not_A Brand";v="99"'),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux {n}"'),
    ("User-Agent", _CHROME + " {n}"),
    ("Accept", "application/json, text/plain, */*;v={n}"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Dest", "empty"),
    ("Referer", "https://shop.example/orders?page={n}"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-GB,en;q=0.9,x-{n};q=0.8"),
    ("Cookie", _SESSION),
)

# nginx itself adds Server, Date, Content-Type, Content-Length and Connection: with these five there are ten.
_ANSWER = (
    ("Cache-Control", "private, max-age=0, must-revalidate"),
    ("ETag", '"$connection-$connection_requests"'),
    ("Vary", "Accept-Encoding, Cookie"),
    ("Set-Cookie", "session=$connection-$connection_requests; Path=/; HttpOnly; SameSite=Lax"),
    ("Strict-Transport-Security", "max-age=63072000; includeSubDomains"),
)

_BARE = (("Host", "shop.example"),)
_TRACE = ("traceparent", "00-{n}{n}-{n}-01")

PROFILES = {
    profile.name: profile
    for profile in (
        Profile("bare", "Bare requests", "/items", _BARE, (), varied=False),
        Profile("bare-varied", "Bare requests, each different", "/items/{n}", (*_BARE, _TRACE), (), varied=True),
        Profile("browser", "A browser's, each different", "/items/{n}?page={n}", _browser("{n}"), _ANSWER, varied=True),
        Profile("strangers", "A new browser's each time", "/items/{n}?page={n}", _STRANGERS, _ANSWER, varied=True),
        Profile("browser-same", "A browser's, all the same", "/items/1?page=1", _browser("1"), _ANSWER, varied=False),
    )
}
"""The kinds of traffic by name. The browser's has 14 request and 10 response headers."""

MEBIBYTE = Profile("bodies", "Responses of 1 MiB", "/items", _BARE, (), varied=False, body=bytes(range(256)) * 4096)
"""For throughput instead of rate."""
