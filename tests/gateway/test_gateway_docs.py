"""`docs/gateway.md`: its routing file is right, and its commands show what it says."""

import json
import re
from pathlib import Path

from toska_common.routing.document import load_document
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_tests.gateways import running_gateway
from toska_tests.programs import finished

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The page's only block in a language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return found


async def test_the_commands_of_the_page_show_what_it_says() -> None:
    snapshot = build_snapshot(build_table(load_document(block("yaml"), source="gateway.md", registry=False)))
    async with running_gateway() as gateway:
        await gateway.supervisor.apply(snapshot)
        script = block("bash").replace("127.0.0.1:8080", "{}:{}".format(*gateway.address))
        done = await finished(["bash", "-u", "-c", script])
    output = done.stdout.decode()
    assert output.startswith("hello\n")
    answers = [json.loads(found)["type"] for found in re.findall(r"\{.*?\}", output)]
    assert answers == ["/problems/bad-target", "/problems/bad-framing", "/problems/bad-request-line"]
    assert "HTTP/1.1 204" in output
