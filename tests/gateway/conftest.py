"""A gateway for the tests of a module: one worker, and a document that each test replaces by its own."""

from collections.abc import AsyncGenerator

import pytest
from toska_tests.gateways import Gateway, running_gateway


@pytest.fixture(scope="module")
async def gateway() -> AsyncGenerator[Gateway]:
    """One supervisor with one worker for a module's tests."""
    async with running_gateway() as gateway:
        yield gateway
