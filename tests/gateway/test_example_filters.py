"""The filters of `examples/shop`, by themselves and in a gateway, and what `docs/filters.md` shows."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toska_common.filters import Reject, Request, Response
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import automatic_route
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.raw_http import ask, chunks, connected, get, response, upstream

from examples.shop.filters import AddTenant, TenantSettings
from examples.shop.redaction import Redact, Redaction, RedactSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "filters.md").read_text(encoding="utf-8")
WORDS = [b"secret", b"secretary", b"cret", b"aa", b"aaa"]


@pytest.fixture(scope="module")
async def gateway() -> AsyncGenerator[Gateway]:
    """A gateway that finds the examples."""
    async with running_gateway(filters=ROOT / "examples") as gateway:
        yield gateway


def test_a_tenant_can_be_tried_without_a_gateway() -> None:
    add = AddTenant(TenantSettings(tenants={"acme.example": "acme"}))
    request = Request("GET", "/orders", host="ACME.example:8080", headers={"x-tenant": "forged"})
    add.on_request(request)
    assert request.headers["x-tenant"] == "acme"
    with pytest.raises(Reject):
        add.on_request(Request(host="other.example"))


async def test_the_tenant_is_told_by_the_host_and_not_by_the_client(gateway: Gateway) -> None:
    use = {"use": "shop.filters:AddTenant", "settings": {"tenants": {"acme.example": "acme"}}}
    async with upstream() as app:
        await gateway.serve(single(app.port, policies={"filters": [use]}))
        await ask(gateway.address, get("/", "x-tenant: forged", host="acme.example"))
        assert app.requests[0].values("x-tenant") == [b"acme"]
        assert (await ask(gateway.address, get("/", host="evil.example"))).status == 404


@given(st.lists(st.one_of(st.sampled_from([*WORDS, b"se", b"cr", b"a", b"et"]), st.binary(max_size=5)), max_size=30))
def test_words_are_masked_the_same_wherever_a_body_is_cut(pieces: list[bytes]) -> None:
    words = re.compile(b"|".join(re.escape(word) for word in sorted(WORDS, key=len, reverse=True)))
    body = Redaction(words, max(map(len, WORDS)), b"***")
    assert b"".join([*map(body.feed, pieces), body.finish()]) == words.sub(b"***", b"".join(pieces))


async def test_words_are_masked_across_chunks_and_never_leave_in_part(gateway: Gateway) -> None:
    use = {"use": "shop.redaction:Redact", "settings": {"words": ["project-x"]}}
    parts = [b"about pro", b"ject", b"-x and proj", b"ect-y"]
    head = response(200, "content-type: text/plain", "transfer-encoding: chunked", length=False)
    async with upstream(head + chunks(parts)) as app:
        await gateway.serve(single(app.port, policies={"filters": [use]}))
        async with connected(gateway.address) as client:
            answer = await client.ask(get("/", "accept-encoding: br", "range: bytes=5-9"))
            assert answer.body == b"about *** and project-y"
        assert app.requests[0].value("accept-encoding") == b"identity"
        assert app.requests[0].value("range") is None


def test_other_types_are_left_alone() -> None:
    redact = Redact(RedactSettings(words=["a"]))
    image = Response(headers={"content-type": "image/png"})
    redact.on_response(image)
    assert image.body_filters is None


def test_a_route_that_a_service_asks_for_names_no_filters() -> None:
    """Only operators' routes can: what a registry says must not choose code."""
    assert automatic_route("orders").policies.filters == ()


async def test_the_page_shows_a_filter_and_a_routing_file_that_work(tmp_path: Path) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    [routes] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "keys.py").write_text(code, encoding="utf-8")
    async with upstream(response(200, "server: old", body=b"ok")) as app, running_gateway(filters=tmp_path) as gateway:
        text = routes.replace("9001", str(app.port))
        assert text != routes
        from toska_common.routing.snapshot import build_snapshot, build_table

        document = load_document(text.encode(), source="filters.md", registry=False)
        await gateway.supervisor.apply(build_snapshot(build_table(document)))
        refused = await ask(gateway.address, get("/orders"))
        assert (refused.status, refused.error) == (401, "filter-refused")
        served = await ask(gateway.address, get("/orders", "x-key: s3cret"))
        assert served.status == 200
        assert app.requests[0].value("x-key") is None
        assert app.requests[0].value("x-customer") == b"acme"
        assert served.value("server") is None
