"""`docs/resilience.md`: its routing file can be served, and every setting stands on the page."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from toska_common.contracts.routing import (
    Backoff,
    Breaker,
    ConnectionLimits,
    Fallback,
    HealthCheck,
    Hedge,
    Outlier,
    RetryPolicy,
)
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_tests.gateways import Gateway

PAGE = (Path(__file__).parents[2] / "docs" / "resilience.md").read_text(encoding="utf-8")


async def test_the_routing_file_of_the_page_can_be_served(gateway: Gateway) -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    await gateway.supervisor.apply(build_snapshot(build_table(load_document(text, source="resilience.md"))))


@pytest.mark.parametrize(
    "rules", [Backoff, Breaker, ConnectionLimits, Fallback, HealthCheck, Hedge, Outlier, RetryPolicy]
)
def test_every_setting_is_on_the_page(rules: type[BaseModel]) -> None:
    for name in rules.model_fields:
        assert re.search(rf"\b{name}\b", PAGE), name


@pytest.mark.parametrize("rules", [RetryPolicy, HealthCheck, ConnectionLimits, Outlier])
def test_defaults_on_the_page_are_the_defaults(rules: type[BaseModel]) -> None:
    for name, value in rules().model_dump(mode="json").items():
        row = re.search(rf"^\| `{name}` \| `([^`]*)`", PAGE, re.MULTILINE)
        if row is not None and not isinstance(value, list | dict | bool):
            assert row[1] in {str(value), "64KiB" if value == 65536 else "", str(value).removesuffix(".0")}, name
