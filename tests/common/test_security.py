"""The rules of management listeners."""

import pytest
from toska_common.credentials import Access, Credentials
from toska_common.security import ManagementPolicy

CREDENTIALS = Credentials(admin="toska_admin_a", join="toska_join_j")
POLL = "/api/v1/snapshot"


@pytest.mark.parametrize(("host", "needed"), [("127.0.0.1", None), ("10.0.0.1", Access.ADMIN)])
def test_a_post_that_only_asks_is_as_open_as_a_read(host: str, needed: Access | None) -> None:
    policy = ManagementPolicy(CREDENTIALS, host=host, read_paths=frozenset({POLL}))
    assert policy.needed("POST", POLL) is needed
    assert policy.needed("POST", POLL) is policy.needed("GET", POLL)


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", POLL), ("DELETE", POLL), ("POST", POLL + "/"), ("POST", "/other")]
)
def test_nothing_else_is_opened_by_it(method: str, path: str) -> None:
    policy = ManagementPolicy(CREDENTIALS, read_paths=frozenset({POLL}))
    assert policy.needed(method, path) is Access.ADMIN


@pytest.mark.parametrize(
    ("forwarded_for", "needed"),
    [
        ("", None),
        ("127.0.0.1", None),
        ("127.0.0.1, ::1", None),
        ("10.0.0.7", Access.ADMIN),
        ("127.0.0.1, 10.0.0.7", Access.ADMIN),
        ("unknown", Access.ADMIN),
    ],
)
def test_a_read_that_a_gateway_brings_from_elsewhere_is_not_open(forwarded_for: str, needed: Access | None) -> None:
    policy = ManagementPolicy(CREDENTIALS, read_paths=frozenset({POLL}))
    assert policy.needed("GET", "/api/v1/routes", forwarded_for=forwarded_for) is needed
    assert policy.needed("POST", POLL, forwarded_for=forwarded_for) is needed
    assert policy.needed("GET", "/health/ready", forwarded_for=forwarded_for) is None
