"""`/docs` in a real browser: one page over all services, a choice of one, and calls that go through the gateway."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright, expect
from toska_tests import parts
from toska_tests.control import ControlMesh, control_mesh, web_server
from toska_tests.waiting import wait_until

expect.set_options(timeout=30_000)  # a page of all services takes seconds where much else runs

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Orders",
        "version": "1.4.0",
        "description": 'Takes **orders** <img src=x onerror="window.cracked=1">.',
    },
    "servers": [{"url": "https://elsewhere.example"}],
    "paths": {
        "/items/{id}": {
            "get": {
                "operationId": "get_item",
                "summary": "One item",
                "tags": ["items"],
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "responses": {
                    "200": {
                        "description": "It",
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}},
                    }
                },
            }
        },
        "/items": {
            "post": {
                "summary": "Add an item",
                "tags": ["items"],
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}},
                },
                "responses": {"201": {"description": "Added"}},
            }
        },
    },
    "components": {
        "schemas": {
            "Item": {
                "type": "object",
                "properties": {"id": {"type": "integer"}, "note": {"$ref": "https://elsewhere.example/note.json"}},
            }
        }
    },
}


class Orders:
    """A user's service, and what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/openapi.json":
            return web.json_response(DOCUMENT)
        self.seen.append((request.method, request.path, request.headers.get("authorization")))
        return web.json_response({"id": 7, "note": "from the service itself"})


@pytest.fixture(scope="module")
async def orders() -> Orders:
    return Orders()


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory, orders: Orders) -> AsyncGenerator[ControlMesh]:
    home = tmp_path_factory.mktemp("home")
    async with control_mesh(home, "discovery", "events", "router", "gateway") as mesh, web_server(orders) as port:
        await mesh.register("orders", port)
        await mesh.until_answered(f"{mesh.data}/orders/items/1")

        async def all_fresh() -> bool:
            listed = await mesh.get(f"{mesh.data}/api/v1/openapi")
            states = [service["state"] for service in listed.json()] if listed.status_code == 200 else []
            return states == ["fresh"] * 5

        await wait_until(all_fresh, within=60, what="the documents of all services are there")
        yield mesh


@pytest.fixture(scope="module")
async def browser() -> AsyncGenerator[Browser]:
    executable = parts.chromium()
    environment: dict[str, str | float | bool] = {**parts.environment()}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"], env=environment or None
        )
        yield browser
        await browser.close()


class Visit:
    """A page, with everything that it asked for and complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requested: set[str] = set()
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requested.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)


@pytest.fixture
async def visit(browser: Browser, mesh: ControlMesh) -> AsyncGenerator[Visit]:
    page = await browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    visit = Visit(page)
    await page.goto(f"{mesh.data}/docs")
    await expect(page.locator(".opblock").first).to_be_visible()
    yield visit
    await page.close()


async def test_all_services_are_on_one_page_and_nothing_comes_from_elsewhere(visit: Visit, mesh: ControlMesh) -> None:
    page = visit.page
    await expect(page.locator("header .name")).to_have_text("Toska Mesh")
    await expect(page.get_by_text("/orders/items/{id}")).to_be_visible()
    await expect(page.get_by_text("/api/v1/routes/{name}").first).to_be_visible()
    options = await page.locator("#service option").all_text_contents()
    assert options == ["All services", "orders", "toska-discovery", "toska-events", "toska-gateway", "toska-router"]
    assert visit.requested == {f"127.0.0.1:{mesh.first}"}
    assert visit.complaints == []


async def test_choosing_a_service_shows_that_one_and_survives_a_reload(visit: Visit) -> None:
    page = visit.page
    await page.locator("#service").select_option("orders")
    await expect(page.locator(".info .title")).to_contain_text("Orders")
    await expect(page.locator(".opblock")).to_have_count(2)
    assert await page.evaluate("window.cracked") is None
    await page.reload()
    await expect(page.locator(".info .title")).to_contain_text("Orders")
    await expect(page.locator("#service")).to_have_value("orders")
    await page.locator("#service").select_option("")
    await expect(page.locator(".info .title")).to_contain_text("Toska Mesh")
    await expect(page.get_by_text("/api/v1/gateway/routes")).to_be_visible()


async def test_try_it_out_calls_the_service_through_the_gateway(
    visit: Visit, orders: Orders, mesh: ControlMesh
) -> None:
    page = visit.page
    operation = page.locator(".opblock", has_text="/orders/items/{id}")
    await operation.locator(".opblock-summary-control").click()
    await operation.locator("input[placeholder=id]").fill("7")
    await operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table")
    await expect(answer).to_contain_text("from the service itself")
    await expect(operation.locator(".request-url")).to_contain_text(f"{mesh.data}/orders/items/7")
    assert orders.seen[-1] == ("GET", "/items/7", None)


async def test_the_mesh_s_token_goes_to_the_mesh_alone_and_is_forgotten_with_the_page(
    visit: Visit, orders: Orders, mesh: ControlMesh
) -> None:
    page = visit.page
    await page.get_by_role("button", name="Authorize").first.click()
    await page.locator(".auth-container input").fill(mesh.credentials.admin)
    await page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
    await page.get_by_role("button", name="Close").click()

    operation = page.locator(".opblock-delete", has_text="/api/v1/routes/{name}")
    await operation.locator(".opblock-summary-control").click()
    await operation.locator("input[placeholder=name]").fill("nothing")
    await operation.get_by_role("button", name="Execute").click()
    await expect(operation.locator(".live-responses-table")).to_contain_text("404")  # known, and not refused

    item = page.locator(".opblock", has_text="/orders/items/{id}")
    await item.locator(".opblock-summary-control").click()
    await item.locator("input[placeholder=id]").fill("8")
    async with page.expect_request("**/orders/items/8") as asked:
        await item.get_by_role("button", name="Execute").click()
    assert "authorization" not in await (await asked.value).all_headers()
    await expect(item.locator(".live-responses-table")).to_contain_text("from the service itself")
    assert orders.seen[-1] == ("GET", "/items/8", None)

    await page.reload()
    await expect(page.locator(".opblock").first).to_be_visible()
    stored = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert mesh.credentials.admin not in stored
    assert await page.locator(".authorization__btn.locked").count() == 0


async def test_the_admin_listener_sends_readers_to_where_calls_work(browser: Browser, mesh: ControlMesh) -> None:
    page = await browser.new_page()
    await page.goto(f"{mesh.admin}/docs?service=orders")
    await expect(page.locator(".info .title")).to_contain_text("Orders")
    assert page.url.startswith(f"{mesh.data}/docs")
    await page.close()


async def test_a_problem_page_can_be_read(browser: Browser, mesh: ControlMesh) -> None:
    page = await browser.new_page()
    await page.goto(f"{mesh.data}/problems")
    await page.get_by_role("link", name="No route matches").click()
    await expect(page.get_by_role("heading", name="No route matches")).to_be_visible()
    await expect(page.get_by_text("What to do")).to_be_visible()
    await page.close()
