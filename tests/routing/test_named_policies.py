"""Policies by name: what a route's come to, and what is wrong with them in a file, each with its line."""

import pytest
from toska_common.contracts.routing import Route
from toska_common.routing.document import InvalidDocument, load_document
from toska_common.routing.snapshot import build_table
from toska_common.routing.versions import table_version

HEAD = """
clusters:
  app: {endpoints: [{address: 127.0.0.1, port: 9001}]}
policies:
  patient: {timeout: 30s, retry: {attempts: 3}, compress: {algorithms: [gzip]}}
  quick: {timeout: 1s, response_timeout: 500ms}
"""


def _route(text: str) -> Route:
    [route] = build_table(load_document(f"{HEAD}routes:\n  - {text}\n", source="mesh.yaml")).routes
    return route


def _problems(text: str) -> list[str]:
    with pytest.raises(InvalidDocument) as refusal:
        load_document(text, source="mesh.yaml")
    return [str(problem) for problem in refusal.value.problems]


def test_a_route_has_the_policies_that_it_names() -> None:
    route = _route("{name: a, match: {path: /a}, to: app, policies_from: patient}")
    assert route.policies.retry.attempts == 3
    assert str(route.policies.timeout) == "0:00:30"
    assert route.policies_from == ("patient",)


def test_a_later_name_goes_before_an_earlier_and_the_route_before_both() -> None:
    for names, own, timeout in (
        ("[patient, quick]", "{}", 1),
        ("[quick, patient]", "{}", 30),
        ("[quick]", "{timeout: 7s}", 7),
    ):
        route = _route(f"{{name: a, match: {{path: /a}}, to: app, policies_from: {names}, policies: {own}}}")
        assert route.policies.timeout is not None
        assert route.policies.timeout.total_seconds() == timeout
        assert route.policies.response_timeout.total_seconds() == 0.5 or names == "[patient]"


def test_a_key_counts_where_it_is_written_also_with_its_default() -> None:
    assert _route("{name: a, match: {path: /a}, to: app, policies_from: patient}").policies.compress is not None
    off = _route("{name: a, match: {path: /a}, to: app, policies_from: patient, policies: {compress: null}}")
    assert off.policies.compress is None
    whole = _route("{name: a, match: {path: /a}, to: app, policies_from: patient, policies: {retry: {}}}")
    assert whole.policies.retry.attempts != 3


def test_policies_complete_one_another() -> None:
    text = """
    clusters: {app: {endpoints: [{address: 127.0.0.1, port: 9001}]}}
    policies:
      login: {auth: {jwt: {issuer: me, audience: us, jwks_url: "https://me.example/keys"}}}
      fair: {rate_limit: {requests: 5, key: "claim:sub"}}
    routes:
      - {name: a, match: {path: /a}, to: app, policies_from: [fair, login]}
      - {name: b, match: {path: /b}, to: app, policies_from: [fair]}
    """
    [problem] = _problems(text)
    assert problem.startswith("line 8: routes[1].policies_from: with fair: policies.rate_limit: by a claim needs auth")


def test_everything_wrong_is_named_with_its_line() -> None:
    text = """
clusters: {app: {endpoints: [{address: 127.0.0.1, port: 9001}]}}
policies:
  copy: {mirror: {cluster: shadwo}}
  wrong: {timeout: soon}
  path: {rewrite: {prefix: /v2}}
routes:
  - {name: a, match: {path: /a}, to: app, policies_from: [copi]}
  - {name: b, match: {path: /b}, to: app, policies_from: [wrong, copy]}
  - {name: c, match: {path: /c}, to: app, policies_from: path}
  - {name: d, match: {path: /d}, to: app, policies_from: [copy, copy]}
"""
    problems = _problems(text)
    assert [problem.partition(": ")[0] for problem in problems] == [f"line {line}" for line in (4, 5, 8, 10, 11)]
    assert 'no cluster "shadwo"' in problems[0]
    assert 'no policy "copi" (did you mean "copy"?)' in problems[2]
    assert "twice" in problems[4]


def test_merged_again_only_what_changed() -> None:
    text = f"{HEAD}routes:\n" + "".join(
        f"  - {{name: r{n}, match: {{path: /{n}}}, to: app, policies_from: {['patient', 'quick'][n % 2]}}}\n"
        for n in range(4)
    )
    document = load_document(text, source="mesh.yaml")
    before = build_table(document)
    quicker = {**document.policies, "quick": document.policies["quick"].model_copy(update={"escaped_slashes": "keep"})}
    after = build_table(document.model_copy(update={"policies": quicker}))
    assert [new is old for new, old in zip(after.routes, before.routes, strict=True)] == [True, False, True, False]
    assert table_version(after) != table_version(before) == table_version(build_table(document))
