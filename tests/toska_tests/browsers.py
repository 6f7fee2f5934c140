"""A real browser: Debian's Chromium, driven by Playwright."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from playwright.async_api import Page, async_playwright

from toska_tests.parts import chromium, environment


@asynccontextmanager
async def browser_page() -> AsyncGenerator[tuple[Page, list[str]]]:
    """A page, and what the browser complains about on it: console errors, and requests to anywhere but this machine."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(),
            env={"PATH": "/usr/bin:/bin", **environment()},
            # Root in a container of CI has no sandbox to put the browser in; the pages are our own.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        try:
            page = await browser.new_page()
            page.set_default_timeout(30_000)
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "request",
                lambda request: (
                    None
                    if request.url.startswith(("http://127.0.0.1:", "data:", "blob:"))
                    else complaints.append(f"asked {request.url}")
                ),
            )
            yield page, complaints
        finally:
            await browser.close()
