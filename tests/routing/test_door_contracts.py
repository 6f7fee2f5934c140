"""What the rules at the door refuse when they are written: each problem names its field and its reason."""

import json
from typing import Any

import pytest
from toska_common.contracts.routing import Route, RoutingDocument
from toska_common.routing.document import InvalidDocument, load_document
from toska_common.routing.versions import resource_version


def document(**route: Any) -> str:
    whole = {"name": "one", "match": {"path_prefix": "/a"}, "to": "app", **route}
    if "redirect" in route:
        del whole["to"]
    clusters = {"app": {"endpoints": [{"address": "127.0.0.1", "port": 1}]}}
    return json.dumps({"clusters": clusters, "routes": [whole]})


def problem_of(**route: Any) -> str:
    with pytest.raises(InvalidDocument) as caught:
        load_document(document(**route), source="mesh.yaml")
    [problem] = caught.value.problems
    return f"{problem.path}: {problem.reason}"


CORS: dict[str, Any] = {"allow_origins": ["https://a.example"]}
VERSIONS: dict[str, Any] = {"by": ["header"], "known": {"1": {}, "2": {}}}


WRONG_POLICIES: list[tuple[dict[str, Any], str, str]] = [
    ({"cors": {"allow_origins": []}}, "cors.allow_origins", "at least 1"),
    ({"cors": {"allow_origins": ["a.example"]}}, "cors.allow_origins[0]", "a scheme and a lower-case host"),
    ({"cors": {"allow_origins": ["https://a.example/"]}}, "cors.allow_origins[0]", "without a path"),
    ({"cors": {"allow_origins": ["https://*"]}}, "cors.allow_origins[0]", "a scheme and a lower-case host"),
    ({"cors": {"allow_origins": ["https://a.*.example"]}}, "cors.allow_origins[0]", "a scheme"),
    ({"cors": {"allow_origins": ["https://a.example:443"]}}, "cors.allow_origins[0]", "without :443"),
    ({"cors": {"allow_origins": ["null"]}}, "cors.allow_origins[0]", "sandboxed"),
    (
        {"cors": {"allow_origins": ["*"], "allow_credentials": True}},
        "cors",
        "allow_origins: * and allow_credentials",
    ),
    ({"cors": {**CORS, "allow_headers": ["*"], "allow_credentials": True}}, "cors", "allow_headers: * and"),
    ({"cors": {**CORS, "allow_methods": ["get"]}}, "cors.allow_methods[0]", "does not match"),
    ({"cors": {**CORS, "max_age": "2d"}}, "cors.max_age", "1d"),
    (
        {"security_headers": {"hsts": {"preload": True}}},
        "security_headers.hsts",
        "preload needs include_subdomains",
    ),
    ({"security_headers": {"frame_options": "ALLOW"}}, "security_headers.frame_options", "'DENY' or 'SAMEORIGIN'"),
    ({"security_headers": {"permissions_policy": "a\r\nb"}}, "security_headers.permissions_policy", "match"),
    (
        {"headers": {"request": {"set": {"x-a": "{client}"}}}},
        "headers.request",
        "x-a: there is no {client}; known are {client_ip}",
    ),
    ({"ip": {}}, "ip", "give allow, deny, or both"),
    ({"ip": {"allow": ["10.0.0.1/8"]}}, "ip.allow[0]", "has host bits set"),
    ({"ip": {"deny": ["everybody"]}}, "ip.deny[0]", "does not appear to be"),
    ({"versions": {**VERSIONS, "by": []}}, "versions.by", "at least 1"),
    ({"versions": {**VERSIONS, "by": ["header", "header"]}}, "versions", "by: each way stands there once"),
    ({"versions": {**VERSIONS, "known": {}}}, "versions.known", "at least 1"),
    ({"versions": {**VERSIONS, "known": {"v1": {}}}}, "versions.known.v1", "does not match"),
    ({"versions": {**VERSIONS, "default": "3"}}, "versions", '"3" is not among the known versions'),
    ({"versions": {**VERSIONS, "strip_path": True}}, "versions", "strip_path needs path in by"),
    ({"versions": {**VERSIONS, "forward_as": "host"}}, "versions", "forward_as: host is used"),
    (
        {"versions": {**VERSIONS, "known": {"1": {"sunset": "2026-13-01"}}}},
        "versions.known.1.sunset",
        "month must be",
    ),
    (
        {"versions": {**VERSIONS, "known": {"1": {"sunset": "soon"}}}},
        "versions.known.1.sunset",
        "a date, 2026-12-31",
    ),
    ({"versions": {**VERSIONS, "known": {"1": {"after_sunset": "gone"}}}}, "versions.known.1", "needs sunset"),
    (
        {"versions": {**VERSIONS, "known": {"1": {"deprecated": "2026-02-01", "sunset": "2026-01-01"}}}},
        "versions.known.1",
        "the sunset does not come before the deprecation",
    ),
    ({"versions": {**VERSIONS, "known": {"1": {"successor": "v2"}}}}, "versions.known.1.successor", "absolute URL"),
    (
        {"versions": {**VERSIONS, "known": {"1": {"cluster": "ap"}}}},
        "versions.known.1.cluster",
        'there is no cluster "ap" (did you mean "app"?)',
    ),
    ({"fault": {}}, "fault", "give delay, abort, or both"),
    ({"fault": {"delay": {"fixed": "0s"}}}, "fault.delay", "longer than 0s"),
    ({"fault": {"delay": {"fixed": "4m", "jitter": "2m"}}}, "fault.delay", "at most 5m"),
    ({"fault": {"abort": {}}}, "fault.abort", "give either status or reset"),
    ({"fault": {"abort": {"status": 503, "reset": True}}}, "fault.abort", "give either status or reset"),
    ({"fault": {"abort": {"status": 200}}}, "fault.abort.status", "400"),
    ({"fault": {"abort": {"status": 503, "percent": 101}}}, "fault.abort.percent", "100"),
    ({"mirror": {"cluster": "shadow"}}, "mirror.cluster", 'there is no cluster "shadow"'),
    ({"mirror": {"cluster": "app", "max_body_bytes": "2MiB"}}, "mirror.max_body_bytes", "1048576"),
    ({"mirror": {"cluster": "app", "timeout": "0s"}}, "mirror", "timeout is longer than 0s"),
    ({"rewrite": {}}, "rewrite", "give prefix, replacement or host"),
    ({"rewrite": {"regex": "/a"}}, "rewrite", "regex needs replacement"),
    ({"rewrite": {"prefix": "/a", "replacement": "/b"}}, "rewrite", "either prefix or replacement"),
    ({"rewrite": {"regex": "/a(", "replacement": "/b"}}, "rewrite.regex", "missing )"),
    ({"rewrite": {"regex": "a", "replacement": "/b"}}, "rewrite.regex", "paths start with /"),
    ({"rewrite": {"regex": "/a", "replacement": "b"}}, "rewrite.replacement", "starts with /"),
    ({"rewrite": {"regex": "/a", "replacement": "/b?c"}}, "rewrite.replacement", "no ?, #"),
    ({"rewrite": {"regex": "/a", "replacement": "/\\1"}}, "rewrite", "replacement: \\1 refers to a group"),
    ({"rewrite": {"host": "a b"}}, "rewrite.host", "a name or an address"),
    ({"rewrite": {"host": "a:70000"}}, "rewrite.host", "a name or an address"),
]


@pytest.mark.parametrize(("policies", "path", "reason"), WRONG_POLICIES)
def test_a_wrong_policy_is_refused_by_field_and_reason(policies: dict[str, Any], path: str, reason: str) -> None:
    found = problem_of(policies=policies)
    assert found.startswith(f"routes[0].policies.{path}: "), found
    assert reason in found


WRONG_ROUTES: list[tuple[dict[str, Any], str]] = [
    ({"match": {"path": "/a", "path_regex": "/a"}}, "give one of path, path_prefix, path_template and path_regex"),
    ({"match": {"path_regex": "/(a"}}, "missing )"),
    ({"match": {"path": "/a"}, "policies": {"rewrite": {"prefix": "/b"}}}, "prefix needs match.path_prefix"),
    (
        {"policies": {"rewrite": {"replacement": "/b"}}},
        "replacement needs regex, match.path_regex or match.path_template",
    ),
    (
        {"match": {"path_regex": "/a"}, "policies": {"rewrite": {"replacement": "/\\1"}}},
        "policies.rewrite.replacement: \\1 refers to a group",
    ),
    ({"strip_prefix": True, "policies": {"rewrite": {"prefix": "/b"}}}, "either strip_prefix or policies.rewrite"),
    ({"redirect": {"to": "/b"}, "policies": {"rewrite": {"prefix": "/b"}}}, "a redirect has words of its own"),
    ({"redirect": {"to": "/b"}, "policies": {"mirror": {"cluster": "app"}}}, "policies.mirror is for routes with to"),
    (
        {"redirect": {"to": "/b"}, "policies": {"versions": {**VERSIONS, "known": {"1": {"cluster": "app"}}}}},
        "a version has a cluster of its own only on a route with to",
    ),
    ({"redirect": {}}, "give to, prefix, scheme or host"),
    ({"redirect": {"to": "/b", "scheme": "https"}}, "to says it all"),
    ({"match": {"path": "/a"}, "redirect": {"prefix": "/b"}}, "prefix needs match.path_prefix"),
    ({"match": {"path_regex": "/(.*)"}, "redirect": {"to": "https://\\1/"}}, "a host is not made of what"),
    ({"match": {"path_regex": "/(.*)"}, "redirect": {"to": "/\\2"}}, "redirect.to: \\2 refers to a group"),
    (
        {"match": {"path": "/a"}, "policies": {"versions": {**VERSIONS, "by": ["path"]}}},
        "by path needs match.path_prefix",
    ),
]


@pytest.mark.parametrize(("route", "reason"), WRONG_ROUTES)
def test_what_does_not_go_together_is_refused(route: dict[str, Any], reason: str) -> None:
    assert reason in problem_of(**route)


def test_the_same_expression_on_two_routes_is_a_conflict() -> None:
    routes = [{"name": name, "match": {"path_regex": "/a.*"}, "respond": {}} for name in "ab"]
    with pytest.raises(InvalidDocument, match="match the same requests"):
        load_document(json.dumps({"routes": routes}), source="mesh.yaml")


def test_rules_come_back_from_json_as_they_were_written() -> None:
    policies = {
        "ip": {"allow": ["10.0.0.0/8", "unix:"]},
        "cors": {**CORS, "allow_credentials": True, "max_age": "1h"},
        "security_headers": True,
        "versions": {
            "by": ["path", "media_type"],
            "known": {
                "1": {"deprecated": "2026-01-01", "sunset": "2026-12-31T12:00:00+02:00"},
                "2": {"cluster": "app"},
            },
            "default": "2",
        },
        "fault": {"delay": {"fixed": "100ms", "percent": 5}, "abort": {"status": 503, "percent": 0.1}},
        "mirror": {"cluster": "app", "percent": 10},
        "rewrite": {"prefix": "/v2", "host": "legacy.example"},
    }
    route = load_document(document(policies=policies), source="mesh.yaml").routes[0]
    again = Route.model_validate_json(route.model_dump_json())
    assert again == route
    assert resource_version(again) == resource_version(route)


def test_rules_that_are_not_used_change_no_version() -> None:
    plain = load_document(document(), source="mesh.yaml")
    assert "policies" not in plain.routes[0].model_dump(mode="json", exclude_defaults=True)
    off = load_document(document(policies={"security_headers": False}), source="mesh.yaml")
    assert isinstance(off, RoutingDocument)
    assert resource_version(off.routes[0]) == resource_version(plain.routes[0])
