"""`docs/observing.md`: its routing file is right, and the metrics and members that it names are there."""

import json
import re
from pathlib import Path

from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_gateway.supervisor import Supervisor
from toska_tests.raw_http import ask, get, response, upstream
from toska_tests.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "observing.md").read_text(encoding="utf-8")


def table_after(heading: str, column: str) -> list[str]:
    """The names in the first column of a table of a section."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = section.partition(f"| {column} |")[2].partition("\n\n")[0]
    return [name for row in rows.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


async def test_the_file_of_the_page_is_served_with_the_metrics_and_members_that_it_names(tmp_path: Path) -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    async with upstream(response(200, body=b"x")) as app:
        text = text.replace("9001", str(app.port))
        table = build_table(load_document(text, source="observing.md", registry=False))
        supervisor = Supervisor("127.0.0.1", 0, 1, tls_folder=tmp_path)
        async with supervisor.run():
            await supervisor.apply(build_snapshot(table))
            await ask(supervisor.address, get("/a", "user-agent: x"))
            page = await supervisor.metrics()
            file = tmp_path / "access.jsonl"
            await wait_until(lambda: file.exists() and file.stat().st_size > 0)
    line = json.loads(file.read_text())
    members = table_after("Access log", "member")
    assert set(line) <= set(members)
    assert {"tls", "query", "subject", "error"} == set(members) - set(line)
    names = [name.replace("…", "cluster").removesuffix("_") for name in table_after("Metrics", "`toska_gateway_…`")]
    assert len(names) > 25
    known = set(re.findall(r"^# TYPE toska_gateway_(\w+)", page, re.MULTILINE))
    assert [name for name in names if name.strip("_") not in known and name not in {"endpoint", "cluster", ""}] == []
