"""`toska routes`: what the router's API has, as one file that is read and written."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toska_common.contracts.revisions import ChangePreview, Difference, WrittenDifference
from toska_common.errors import ConfigurationError

from toska_cli.admin_api import AdminApi


def read_document(file: str) -> bytes:
    """The content of a file, or of standard input for `-`.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error


def apply_document(
    router: AdminApi, text: bytes, *, prune: bool, dry_run: bool, reason: str = "", as_json: bool = False
) -> None:
    """Have the router's API hold what a document says, and print what is different.

    Raises:
        MeshError: The router refuses it, whole, or does not answer.
    """
    query = f"?prune={str(prune).lower()}&dry_run={str(dry_run).lower()}"
    media_type = "application/json" if _is_json(text) else "application/yaml"
    found = router.post_text(f"/api/v1/document{query}", text, media_type, headers=_author(reason))
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write("\n".join(describe(ChangePreview.model_validate(found))) + "\n")


def export_document(router: AdminApi) -> None:
    """Print all that the router's API has, in YAML.

    Raises:
        MeshError: The router refuses, or does not answer.
    """
    from ruamel.yaml import YAML

    found: Mapping[str, Any] = router.get("/api/v1/document")
    writer: Any = YAML()
    writer.default_flow_style = False
    writer.version = None
    writer.dump(dict(found), sys.stdout)


def describe(preview: ChangePreview) -> Iterator[str]:
    """What is, or would be, different."""
    for item in preview.written:
        yield from _item(item)
    if preview.compiled is not None:
        routes = [f"{one.name} ({one.change})" for one in preview.compiled.routes]
        clusters = [f"{one.name} ({one.change})" for one in preview.compiled.clusters]
        yield f"gateways would see of routes: {', '.join(routes) or 'nothing'}"
        yield f"           and of clusters: {', '.join(clusters) or 'nothing'}"
        yield "dry run: nothing was changed"
    elif preview.revision is not None:
        yield f"revision {preview.revision}"
    else:
        yield "nothing to change"


def _item(item: WrittenDifference) -> Iterator[str]:
    yield f"{item.change:<8} {item.kind} {item.name}"
    if item.change == "changed":
        yield from (f"           {_difference(one)}" for one in item.differences)


def _difference(one: Difference) -> str:
    if one.change == "added":
        return f"{one.path}: {_short(one.after)}, new"
    if one.change == "removed":
        return f"{one.path}: {_short(one.before)}, taken away"
    return f"{one.path}: {_short(one.before)} -> {_short(one.after)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _author(reason: str) -> dict[str, str]:
    said = {"x-toska-actor": os.environ.get("USER", ""), "x-toska-reason": reason}
    # As bytes of UTF-8: http.client takes no more than Latin-1 in a header.
    return {name: value.encode().decode("latin-1") for name, value in said.items() if value}
