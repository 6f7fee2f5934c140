"""`docs/caching.md`: its routing file is right, and its tables name every setting."""

import re
from pathlib import Path

from toska_common.contracts.routing import CacheKey, ResponseCache
from toska_common.routing.document import load_document

PAGE = (Path(__file__).parents[2] / "docs" / "caching.md").read_text(encoding="utf-8")


def test_the_routing_file_of_the_page_is_right() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(load_document(text, source="caching.md", registry=False).routes) == 2


def test_every_setting_is_on_the_page() -> None:
    for name in (*ResponseCache.model_fields, *CacheKey.model_fields):
        assert name in PAGE, name
    defaults = [f"| {', '.join(map(str, ResponseCache().statuses))} |", "`1MiB`", "`5s`"]
    for default in defaults:
        assert default in PAGE, default
