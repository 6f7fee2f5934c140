"""`docs/traffic.md`: each of its routing files can be served, and the words of the rules at the door stand in it."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from toska_common.contracts import routing
from toska_common.placeholders import PLACEHOLDERS
from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_tests.gateways import Gateway

PAGE = (Path(__file__).parents[2] / "docs" / "traffic.md").read_text(encoding="utf-8")
FILES = [text for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "routes:\n" in text]


@pytest.mark.parametrize("text", FILES)
async def test_each_routing_file_of_the_page_can_be_served(gateway: Gateway, text: str) -> None:
    snapshot = build_snapshot(build_table(load_document(text, source="traffic.md")))
    await gateway.supervisor.apply(snapshot)


RULES = (
    routing.Abort,
    routing.ApiVersion,
    routing.Cors,
    routing.Delay,
    routing.Fault,
    routing.HeaderEdits,
    routing.IpRules,
    routing.Mirror,
    routing.Redirect,
    routing.RequireHttps,
    routing.Rewrite,
    routing.SecurityHeaders,
    routing.Versions,
)


@pytest.mark.parametrize("rule", RULES)
def test_every_setting_at_the_door_is_on_the_page(rule: type[BaseModel]) -> None:
    for name in rule.model_fields:
        assert re.search(rf"\b{name}\b", PAGE), name


def test_every_placeholder_is_on_the_page() -> None:
    for name in PLACEHOLDERS:
        assert f"`{{{name}}}`" in PAGE, name
