"""What a request has to say besides where it goes: templates, loose values, cookies, clients, and priority."""

import re
from collections.abc import Sequence
from typing import Any

from toska_tests.conformance.case import Case
from toska_tests.conformance.cases.matching import taking
from toska_tests.conformance.steps import Ask
from toska_tests.gateways import route
from toska_tests.raw_http import get

_PHONES = "(?i).*(iphone|ipad|android|windows phone|blackberry|opera mini|iemobile|kindle|silk|symbian).*"


def fitting(path: str, to: str, **more: Any) -> dict[str, Any]:
    """A route of the paths that fit a template."""
    return {
        "name": path.strip("/").replace("/", "-").translate(_NO_BRACES),
        "match": {"path_template": path},
        "to": to,
    } | more


_NO_BRACES = str.maketrans("", "", "{}=*")
_TEMPLATES = [
    fitting("/users/{id}", "a"),
    fitting("/users/{id}/orders", "b"),
    fitting("/users/{id}/{what}", "c"),
    fitting("/files/{name=**}", "d"),
    taking("rest", "e"),
]


def by_header(**wanted: Any) -> list[dict[str, Any]]:
    """A route of requests whose x-a is what is wanted, and one of the others."""
    return [taking("wanted", "b", headers={"x-a": wanted}), taking("others", "a")]


def _loose(name: str, wanted: dict[str, Any], fits: Sequence[str], others: Sequence[str]) -> Case:
    steps = [
        Ask(get("/", *([f"X-A: {value}"] if value else [])), by=by)
        for by, values in (("b", fits), ("a", others))
        for value in values
    ]
    return Case(f"a header may be matched by {name}", steps, by_header(**wanted))


CASES: Sequence[Case] = (
    Case(
        "a variable of a template is one whole segment, and one of a tail all that is left",
        [
            Ask(get("/users/1"), by="a"),
            Ask(get("/users/%C3%A9.b"), by="a"),
            Ask(get("/users/1/orders"), by="b"),
            Ask(get("/users/1/invoices"), by="c"),
            Ask(get("/users/1/orders/2"), by="e"),
            Ask(get("/users/1/"), by="e"),
            Ask(get("/users"), by="e"),
            Ask(get("/files/a/b.txt"), by="d"),
            Ask(get("/files/"), by="d"),
            Ask(get("/files"), by="e"),
        ],
        _TEMPLATES,
    ),
    Case(
        "what variables stand for can be put into another path",
        [
            Ask(get("/users/7/files/a/b?x=1"), by="a", target="/accounts/7/a/b?x=1"),
            Ask(get("/old/7"), 301, gets={"location": re.compile(rb"(http://test)?/users/7")}),
        ],
        [
            fitting(
                "/users/{user}/files/{rest=**}", "a", policies={"rewrite": {"replacement": "/accounts/{user}/{rest}"}}
            ),
            {"name": "old", "match": {"path_template": "/old/{id}"}, "redirect": {"to": "/users/{id}", "status": 301}},
        ],
    ),
    Case(
        "an exact path goes before a template, that before an expression, and that before a prefix",
        [
            Ask(get("/users/me"), by="a"),
            Ask(get("/users/1"), by="b"),
            Ask(get("/users/1/x"), by="c"),
            Ask(get("/users"), by="d"),
        ],
        [
            taking("prefix", "d", path_prefix="/users"),
            {"name": "expression", "match": {"path_regex": "/users/.*"}, "to": "c"},
            fitting("/users/{id}", "b"),
            {"name": "exact", "match": {"path": "/users/me"}, "to": "a"},
        ],
    ),
    _loose("how it begins", {"prefix": "eu-"}, ["eu-1", "eu-"], ["xeu-1", "EU-1", ""]),
    _loose("how it ends", {"suffix": ".test"}, ["a.test"], ["a.test.", ""]),
    _loose("a part", {"contains": "bc"}, ["abcd", "bc"], ["b c", ""]),
    _loose("an expression that all of it fits", {"regex": "[0-9]+"}, ["17"], ["17x", ""]),
    _loose("a long expression that all of it fits", {"regex": _PHONES}, ["an iPhone 9", "ANDROID"], ["a phone"]),
    _loose("its being there", {"present": True}, ["x"], [""]),
    _loose("its not being there", {"present": False}, [""], ["x"]),
    _loose("not being something, which what is not there is not", {"exact": "1", "invert": True}, ["2", ""], ["1"]),
    Case(
        "a cookie is matched by itself, wherever it stands",
        [
            Ask(get("/", "Cookie: group=staff"), by="b"),
            Ask(get("/", "Cookie: a=1; group=staff; b=2"), by="b"),
            Ask(get("/", "Cookie: xgroup=staff"), by="a"),
            Ask(get("/", "Cookie: a=group=staff"), by="a"),
            Ask(get("/", "Cookie: group=staffer"), by="a"),
            Ask(get("/"), by="a"),
        ],
        [taking("staff", "b", cookies={"group": "staff"}), taking("others", "a")],
    ),
    Case(
        "clients are told apart by their own address, as trusted proxies tell it",
        [
            Ask(get("/", "X-Forwarded-For: 10.1.2.3"), by="b"),
            Ask(get("/", "X-Forwarded-For: 10.1.2.3, 192.0.2.1"), by="a"),
            Ask(get("/", "X-Forwarded-For: 2001:db8::7"), by="b"),
            Ask(get("/"), by="a"),
        ],
        [taking("inside", "b", client_ip=["10.0.0.0/8", "2001:db8::/32"]), taking("others", "a")],
        server={"trusted_proxies": ["127.0.0.1/32"]},
    ),
    Case(
        "a priority puts a route before those that match more exactly, or after all",
        [
            Ask(get("/"), by="a"),
            Ask(get("/x"), by="b"),
            Ask(get("/", "X-Maintenance: 1"), by="c"),
            Ask(get("/x", "X-Maintenance: 1"), by="c"),
        ],
        [
            {"name": "exact", "match": {"path": "/x"}, "to": "b"},
            taking("all", "a"),
            taking("maintenance", "c", headers={"x-maintenance": "1"}) | {"priority": 10},
            {"name": "late", "match": {"path": "/"}, "to": "d", "priority": -1},
        ],
    ),
    Case(
        "a part of a split may be for those that ask for it",
        [
            Ask(get("/", "X-Canary: 1"), by="b"),
            Ask(get("/", "Cookie: group=staff"), by="b"),
            Ask(get("/", "Cookie: group=guest"), by="a"),
            Ask(get("/"), by="a"),
        ],
        [
            route(
                "shop",
                to=[
                    {"cluster": "b", "when": {"headers": {"x-canary": "1"}}},
                    {"cluster": "b", "when": {"cookies": {"group": "staff"}}},
                    {"cluster": "a", "weight": 1},
                    {"cluster": "b", "weight": 0},
                ],
            )
        ],
    ),
)
