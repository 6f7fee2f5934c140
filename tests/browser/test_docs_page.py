"""The API documentation of a whole mesh, as somebody uses it in a browser."""

from collections.abc import AsyncGenerator

import pytest
from playwright.async_api import Page, expect
from toska_tests.browsers import browser_page
from toska_tests.meshes import RunningMesh, toska_up


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningMesh]:
    async with toska_up(tmp_path_factory.mktemp("mesh"), "--workers", "1") as started:
        yield started


async def _execute(page: Page, method: str, path: str, **parameters: str) -> str:
    """Open an operation, fill it in, call it, and return the status that is shown."""
    block = page.locator(f".opblock-{method}", has=page.locator(f'[data-path="{path}"]'))
    execute = block.get_by_role("button", name="Execute")
    if not await execute.is_visible():
        await block.locator(".opblock-summary").click()
    for name, value in parameters.items():
        await block.locator(f"tr[data-param-name={name}] input").fill(value)
    async with page.expect_response(lambda response: response.request.method == method.upper()) as answered:
        await execute.click()
    status = str((await answered.value).status)
    await expect(block.locator(".live-responses-table .response .response-col_status")).to_contain_text(status)
    return status


async def test_every_service_is_described_and_its_operations_work(mesh: RunningMesh) -> None:
    async with browser_page() as (page, complaints):
        await page.goto(f"{mesh.gateway}/docs")
        choice = page.get_by_label("Service", exact=True)
        offered = await choice.locator("option").all_inner_texts()
        assert {"orders", "payments", "toska-discovery", "toska-router", "toska-gateway"} <= set(offered)
        await choice.select_option("payments")
        await expect(page.locator(".info .title")).to_contain_text("Payments")
        assert await _execute(page, "get", "/payments/fees", amount="10") == "200"
        await choice.select_option("orders")
        assert await _execute(page, "get", "/orders/{order_id}", order_id="42") == "200"
        assert complaints == []


async def test_a_token_that_is_entered_works_and_is_gone_with_the_page(mesh: RunningMesh) -> None:
    async with browser_page() as (page, _complaints):
        await page.goto(f"{mesh.gateway}/docs?service=toska-router")
        change = ("delete", "/api/v1/clusters/{name}")
        assert await _execute(page, *change, name="nobody") == "401"
        await page.locator(".auth-wrapper .authorize").first.click()
        await page.locator(".auth-container input").first.fill(mesh.token("admin"))
        await page.locator(".auth-btn-wrapper .authorize").click()
        await page.locator(".auth-btn-wrapper .btn-done").click()
        assert await _execute(page, *change, name="nobody") == "404"
        stored = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert mesh.token("admin") not in stored
        await page.reload()
        assert await _execute(page, *change, name="nobody") == "401"
