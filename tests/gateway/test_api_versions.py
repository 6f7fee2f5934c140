"""Versions of an API: how requests name them, who serves them, and what is told of those that end."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from toska_tests.gateways import Gateway, cluster
from toska_tests.raw_http import ask, connected, get, request, response, upstream

VND = "application/vnd.shop."


def document(port: int, versions: dict[str, Any], prefix: str = "/api", **route: Any) -> dict[str, Any]:
    policies: dict[str, Any] = {
        "versions": {"known": {"1": {}, "2": {}, "2.1": {}}, **versions},
        **route.pop("policies", {}),
    }
    return {
        "clusters": {"app": cluster(port), "other": cluster(port)},
        "routes": [
            {"name": "api", "match": {"path_prefix": prefix}, "to": "app", "policies": policies, **route},
        ],
    }


@pytest.mark.parametrize(
    ("versions", "asked", "version"),
    [
        ({"by": ["path"]}, get("/api/v1/orders"), b"1"),
        ({"by": ["path"]}, get("/api/V2.1"), b"2.1"),
        ({"by": ["path"], "default": "2"}, get("/api/videos"), b"2"),
        ({"by": ["path"], "default": "2"}, get("/api/x/v1"), b"2"),
        ({"by": ["header"]}, get("/api", "X-API-Version: 2"), b"2"),
        ({"by": ["header"]}, get("/api", "x-api-version: v1"), b"1"),
        ({"by": ["header"], "header": "accept-version"}, get("/api", "Accept-Version: 2.1"), b"2.1"),
        ({"by": ["media_type"]}, get("/api", "Accept: application/json; v=2"), b"2"),
        ({"by": ["media_type"]}, get("/api", 'Accept: text/html;q=0.2, application/json;q=1;V="2"'), b"2"),
        ({"by": ["media_type"], "parameter": "version"}, get("/api", "Accept: a/b;v=1;version=2"), b"2"),
        ({"by": ["media_type"]}, get("/api", f"Accept: {VND}v2+json"), b"2"),
        ({"by": ["media_type"]}, get("/api", f"Accept: {VND}v2.1+json;q=0.5"), b"2.1"),
        ({"by": ["media_type"]}, get("/api", f"Accept: {VND}v2.orders+json"), b"2"),
        ({"by": ["media_type"], "default": "1"}, get("/api", "Accept: */*"), b"1"),
        ({"by": ["query"]}, get("/api?a=1&api-version=2"), b"2"),
        ({"by": ["path", "header"]}, get("/api/v1", "X-API-Version: 2"), b"1"),
        ({"by": ["header", "path"]}, get("/api/v1", "X-API-Version: 2"), b"2"),
        ({"by": ["header", "path"], "default": "2"}, get("/api/v1"), b"1"),
    ],
)
async def test_the_upstream_is_told_the_version_that_the_request_names(
    gateway: Gateway, versions: dict[str, Any], asked: bytes, version: bytes
) -> None:
    async with upstream() as app:
        await gateway.serve(document(app.port, versions))
        assert (await ask(gateway.address, asked)).status == 200
    assert app.requests[0].value("x-api-version") == version


@pytest.mark.parametrize(
    ("by", "asked", "status"),
    [
        ("path", get("/api/v3/orders"), 400),
        ("path", get("/api/orders"), 400),
        ("path", get("/api/v2.0/orders"), 400),
        ("header", get("/api", "X-API-Version: 3"), 400),
        ("header", get("/api", "X-API-Version: 2.9"), 400),
        ("header", get("/api", "X-API-Version: 1", "X-API-Version: 2"), 400),
        ("header", get("/api", "X-API-Version:"), 400),
        ("media_type", get("/api", "Accept: application/json;v=9"), 406),
        ("media_type", get("/api", f"Accept: {VND}v9+json"), 406),
        ("media_type", get("/api", "Accept: application/json"), 400),
        ("query", get("/api?api-version=%31"), 400),
    ],
)
async def test_an_unknown_version_is_refused_with_a_list_of_those_there_are(
    gateway: Gateway, by: str, asked: bytes, status: int
) -> None:
    async with upstream() as app:
        await gateway.serve(document(app.port, {"by": [by]}))
        answer = await ask(gateway.address, asked)
    assert (answer.status, answer.error) == (status, "unknown-api-version")
    assert b"known are 1, 2, 2.1" in answer.body
    assert app.requests == []


async def test_the_versions_segment_can_be_taken_off_the_path(gateway: Gateway) -> None:
    async with upstream() as app:
        by_path = {"by": ["path"], "strip_path": True, "default": "2"}

        async def sent(prefix: str, path: str, **route: Any) -> tuple[str, bytes | None]:
            await gateway.serve(document(app.port, by_path, prefix, **route))
            assert (await ask(gateway.address, get(path))).status == 200
            message = app.requests[-1]
            return message.target, message.value("x-forwarded-prefix")

        assert await sent("/api", "/api/v1/orders/?x=1") == ("/api/orders/?x=1", None)
        assert await sent("/api", "/api/v1") == ("/api", None)
        assert await sent("/", "/v1") == ("/", None)
        assert await sent("/", "/v1/a%2fb%20c", policies={"escaped_slashes": "keep"}) == ("/a%2Fb%20c", None)
        assert await sent("/api", "/api/orders") == ("/api/orders", None)
        assert await sent("/api", "/api/v1/orders", strip_prefix=True) == ("/orders", b"/api")
        assert await sent("/api", "/api/v1/orders", policies={"rewrite": {"prefix": "/x"}}) == ("/x/orders", None)


async def test_a_version_can_have_a_cluster_of_its_own(gateway: Gateway) -> None:
    async with upstream(response(200, body=b"old")) as old, upstream(response(200, body=b"new")) as new:
        one = document(new.port, {"by": ["header"], "default": "2", "known": {"1": {"cluster": "other"}, "2": {}}})
        one["clusters"]["other"] = cluster(old.port)
        await gateway.serve(one)
        async with connected(gateway.address) as client:
            for version, served in (("1", b"old"), ("2", b"new"), ("1", b"old")):
                assert (await client.ask(get("/api", f"X-API-Version: {version}"))).body == served


async def test_what_a_client_says_of_its_version_does_not_get_past_the_rules(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(document(app.port, {"by": ["path"]}))
        assert (await ask(gateway.address, get("/api/v1", "X-API-VERSION: 2", "x-api-version: 9"))).status == 200
        assert app.requests[-1].values("x-api-version") == [b"1"]
        await gateway.serve(document(app.port, {"by": ["path"], "forward_as": None}))
        assert (await ask(gateway.address, get("/api/v1", "X-API-Version: 2"))).status == 200
        assert app.requests[-1].values("x-api-version") == [b"2"]


async def test_caches_are_told_what_an_answer_depends_on(gateway: Gateway) -> None:
    async with upstream() as app:
        await gateway.serve(document(app.port, {"by": ["path", "header", "media_type"], "default": "1"}))
        assert (await ask(gateway.address, get("/api"))).value("vary") == b"x-api-version, accept"
        assert (await ask(gateway.address, get("/api/v7"))).value("vary") == b"x-api-version, accept"
        await gateway.serve(document(app.port, {"by": ["path"]}))
        assert (await ask(gateway.address, get("/api/v1"))).value("vary") is None


ENDING = {
    "deprecated": "2026-01-01",
    "sunset": "2999-12-31T12:00:00+01:00",
    "deprecation_link": "https://shop.example/news?a=1&b",
    "sunset_link": "/end",
    "successor": "/api/v2",
}


async def test_callers_of_a_deprecated_version_are_told_in_the_words_of_the_rfcs(gateway: Gateway) -> None:
    says = ["Deprecation: @1", "SUNSET: never", 'Link: </style.css>; rel="stylesheet"']
    async with upstream(response(200, *says, body=b"ok")) as app:
        known = {"1": ENDING, "2": {}}
        await gateway.serve(document(app.port, {"by": ["path"], "known": known}))
        answer = await ask(gateway.address, get("/api/v1"))
        assert answer.values("deprecation") == [b"@1767225600"]
        assert answer.values("sunset") == [b"Tue, 31 Dec 2999 11:00:00 GMT"]
        assert answer.values("link") == [
            b'</style.css>; rel="stylesheet"',
            b'<https://shop.example/news?a=1&b>; rel="deprecation"',
            b'</end>; rel="sunset"',
            b'</api/v2>; rel="successor-version"',
        ]
        other = await ask(gateway.address, get("/api/v2"))
        assert other.values("sunset") == [b"never"]
        assert len(other.values("link")) == 1


async def test_errors_of_a_deprecated_version_tell_it_too(gateway: Gateway) -> None:
    await gateway.serve(document(1, {"by": ["path"], "known": {"1": ENDING}}))
    answer = await ask(gateway.address, get("/api/v1"))
    assert answer.error == "upstream-connect-failed"
    assert answer.value("deprecation") == b"@1767225600"


async def test_after_its_sunset_a_version_is_served_or_gone_as_the_operator_says(gateway: Gateway) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    future = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with upstream() as app:
        known = {
            "1": {"sunset": past, "after_sunset": "gone", "successor": "/api/v3"},
            "2": {"sunset": past},
            "3": {"sunset": future, "after_sunset": "gone"},
        }
        await gateway.serve(document(app.port, {"by": ["path"], "known": known}))
        gone = await ask(gateway.address, request("POST", "/api/v1", body=b"x"))
        assert (gone.status, gone.error) == (410, "api-version-gone")
        assert gone.value("link") == b'</api/v3>; rel="successor-version"'
        assert b"known are 1, 2, 3" in gone.body
        for path in ("/api/v2", "/api/v3"):
            assert (await ask(gateway.address, get(path))).status == 200
    assert [message.target for message in app.requests] == ["/api/v2", "/api/v3"]


async def test_a_route_that_answers_itself_knows_versions_too(gateway: Gateway) -> None:
    versions: dict[str, Any] = {"by": ["header"], "known": {"1": {}}}
    await gateway.serve(
        {
            "routes": [
                {
                    "name": "api",
                    "match": {"path": "/api"},
                    "respond": {"body": "hello"},
                    "policies": {"versions": versions},
                }
            ]
        }
    )
    assert (await ask(gateway.address, get("/api", "X-API-Version: 1"))).body == b"hello"
    assert (await ask(gateway.address, get("/api", "X-API-Version: 2"))).status == 400


async def test_whatever_a_client_writes_it_gets_a_known_version_or_a_refusal(gateway: Gateway) -> None:
    chance = random.Random(7)
    pieces = [
        "1",
        "2.1",
        "9",
        "v",
        "V1",
        ".",
        ";",
        ",",
        '"',
        "=",
        "v=",
        ";v=1",
        "application/",
        "vnd.shop.",
        ".v2",
        "+json",
    ]
    pieces += ["a/b;v=1", "application/vnd.shop.v2+json", "v2.1/", "v1/x", "?api-version=1", "1"]
    pieces += ["/", "%31", "?api-version=", "&", " ", "\t", "\xe9", "-", "vnd..v1", "*/*"]

    def written(*without: str) -> str:
        return "".join(
            chance.choice([one for one in pieces if one not in without])
            for _ in range(chance.choice([0, 1, 1, 2, 3, 7]))
        )

    async with upstream() as app:
        await gateway.serve(document(app.port, {"by": ["path", "header", "media_type", "query"], "strip_path": True}))
        async with connected(gateway.address) as client:
            for _ in range(300):
                target = "/api/" + written(" ", "\t", "\xe9", '"')
                seen = len(app.requests)
                fields = [f"{name}: {written()}" for name in ("X-API-Version", "Accept") if chance.random() < 0.4]
                answer = await client.ask(get(target, *fields))
                if answer.status == 200:
                    assert app.requests[-1].value("x-api-version") in (b"1", b"2", b"2.1")
                else:
                    assert (answer.status, answer.error) in ((400, "unknown-api-version"), (406, "unknown-api-version"))
                    assert len(app.requests) == seen
    assert 15 < len(app.requests) < 285
