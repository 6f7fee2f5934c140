"""`docs/traffic.md`, `docs/routing-changes.md`: routing files are right, and commands work as they stand there."""

import re
import textwrap
from pathlib import Path

import pytest
from toska_common.routing.document import load_document
from toska_tests.programs import finished
from toska_tests.routers import RunningRouter

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "traffic.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_routing_file_of_the_page_is_right() -> None:
    text, *_ = blocks("yaml")
    assert len(load_document(text, source="traffic.md").routes) == 4


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_routing_file_and_policy_of_the_page_is_right(text: str) -> None:
    if text.startswith("policies:"):
        text = f"routes:\n- name: one\n  match: {{path_prefix: /}}\n  respond: {{}}\n{textwrap.indent(text, '  ')}"
    assert load_document(text, source="traffic.md").routes


async def test_the_commands_of_the_page_work_in_their_order(
    router: RunningRouter, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".toska").symlink_to(home)
    url = str(router.http.base_url).rstrip("/")
    script = "\n".join(blocks("bash")).replace("http://127.0.0.1:8102", url)
    done = await finished(["bash", "-e", "-u", "-c", script], cwd=tmp_path)
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, errors
    assert 'did you mean \\"methods\\"?' in output
    assert "is used by the routes pay" in output
    assert await router.read("routes") == []
    assert await router.read("clusters") == []


async def test_the_commands_about_changes_work_in_their_order(
    router: RunningRouter, home: Path, tmp_path: Path
) -> None:
    (tmp_path / ".toska").symlink_to(home)
    url = str(router.http.base_url).rstrip("/")
    commands = blocks("bash", (DOCS / "routing-changes.md").read_text(encoding="utf-8"))
    script = "set -o pipefail\n" + "\n".join(commands).replace("http://127.0.0.1:8102", url)
    done = await finished(["bash", "-e", "-u", "-c", script], cwd=tmp_path)
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, errors
    assert '"actor":"alice","reason":"shop is slow"' in output
    assert '"before":"5s","after":"20s"' in output
    assert await router.read("routes") == []
    assert [revision["source"] for revision in await router.read("revisions?limit=2")] == ["rollback", "rollback"]
