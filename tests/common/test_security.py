"""The rules of management listeners."""

from collections.abc import AsyncGenerator
from typing import Annotated

import httpx
import pytest
from fastapi import Body, FastAPI
from toska_common import problem
from toska_common.credentials import Access, Credentials
from toska_common.security import ManagementGuard, ManagementPolicy

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


async def _in_pieces(total: int) -> AsyncGenerator[bytes]:
    for _ in range(total // 100):
        yield b" " * 100


@pytest.mark.parametrize("announced", [True, False])
async def test_what_is_larger_than_anybody_needs_is_refused_before_it_is_kept(announced: bool) -> None:
    app = FastAPI()
    problem.install(app)

    @app.post("/")
    def post(body: Annotated[dict[str, str], Body()]) -> dict[str, str]:  # pyright: ignore[reportUnusedFunction] - by its route
        return body

    guarded = ManagementGuard(app, ManagementPolicy(CREDENTIALS, read_paths=frozenset({"/"}), max_body_bytes=1000))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost") as client:
        headers = {"content-type": "application/json"}
        assert (await client.post("/", content=b'{"a": "b"}', headers=headers)).status_code == 200
        refused = await client.post("/", content=b" " * 1001 if announced else _in_pieces(1100), headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (413, "/problems/body-too-large")
