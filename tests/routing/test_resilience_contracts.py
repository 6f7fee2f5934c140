"""What may be asked for against failing upstreams, and how what may not is refused."""

from typing import Any

import pytest
from toska_common.routing.document import load_document
from toska_common.routing.problems import InvalidDocument

TEMPLATE = """
clusters:
  app: {{endpoints: [{{address: 127.0.0.1, port: 9}}], {cluster}}}
routes:
  - {{name: a, match: {{path: /a}}, to: app, policies: {{{policies}}}}}
"""


def problems(policies: str = "", cluster: str = "keep_alive: 30s") -> list[tuple[str, str]]:
    """What is wrong with a document, each with its place."""
    try:
        load_document(TEMPLATE.format(policies=policies, cluster=cluster), source="test")
    except InvalidDocument as error:
        return [(problem.path, problem.reason) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("policies", "place", "reason"),
    [
        ("retry: {attempts: 6}", "retry.attempts", "less than or equal to 5"),
        ("retry: {retry_on: [conect]}", "retry.retry_on[0]", "'conect' is none of connect, reset"),
        ("retry: {retry_on: [200]}", "retry.retry_on[0]", "statuses from 400 on"),
        ("retry: {budget: 1.5}", "retry.budget", "less than or equal to 1"),
        ("retry: {per_try_timeout: 0s}", "retry.per_try_timeout", "longer than 0s"),
        ("retry: {backoff: {base: 1s, max: 100ms}}", "retry.backoff", "base is at most max"),
        ("retry: {backoff: {base: 25}}", "retry.backoff.base", "a duration is a number with its unit"),
        ("retry: {replay_bytes: 1GiB}", "retry.replay_bytes", "less than or equal to"),
        ("retry: {tries: 3}", "retry.tries", "unknown key"),
        ("hedge: {}", "hedge.after", "required"),
        ("hedge: {after: 0s}", "hedge.after", "at least 1ms"),
        ("hedge: {after: 1s, attempts: 4}", "hedge.attempts", "less than or equal to 3"),
        ("fallback: {}", "fallback", "give either cluster or respond"),
        ("fallback: {cluster: app, respond: {}}", "fallback", "give either cluster or respond"),
        ("fallback: {cluster: app, on: [everything]}", "fallback.on[0]", "none of unavailable"),
        ("fallback: {cluster: app, on: []}", "fallback", "at least one condition"),
        ("fallback: {cluster: apps}", "fallback.cluster", 'there is no cluster "apps" (did you mean "app"?)'),
    ],
)
def test_a_policy_that_cannot_be_is_refused_with_its_place(policies: str, place: str, reason: str) -> None:
    [(path, found)] = problems(policies)
    assert path == f"routes[0].policies.{place}"
    assert reason in found


@pytest.mark.parametrize(
    ("cluster", "place", "reason"),
    [
        ("limits: {max_requests: -1}", "limits.max_requests", "greater than or equal to 0"),
        ("limits: {pending_timeout: 0s}", "limits.pending_timeout", "longer than 0s"),
        ("outlier: {max_ejected_percent: 101}", "outlier.max_ejected_percent", "less than or equal to 100"),
        ("outlier: {base_ejection: 2m}", "outlier", "at most max_ejection"),
        ("health_check: {path: ready}", "health_check.path", "a path starts with /"),
        ("health_check: {expect: [600]}", "health_check.expect[0]", "'600' is no status"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_with_its_place(cluster: str, place: str, reason: str) -> None:
    [(path, found)] = problems(cluster=cluster)
    assert path == f"clusters.app.{place}"
    assert reason in found


@pytest.mark.parametrize("written", ['"503"', "503"])
def test_a_status_may_be_written_as_a_number_or_as_a_word(written: str) -> None:
    text = TEMPLATE.format(policies=f"retry: {{retry_on: [{written}]}}", cluster="keep_alive: 30s")
    [route] = load_document(text, source="test").routes
    assert route.policies.retry.retry_on == ("503",)


def test_what_is_not_asked_for_is_not_done() -> None:
    text = TEMPLATE.format(policies="", cluster="keep_alive: 30s")
    document = load_document(text, source="test")
    policies: Any = document.routes[0].policies
    cluster = document.clusters["app"]
    assert (policies.hedge, policies.fallback, policies.retry.per_try_timeout) == (None, None, None)
    assert policies.retry.retry_on == ("connect", "reset")
    assert (cluster.health_check, cluster.breaker, cluster.limits.max_requests) == (None, None, 0)
