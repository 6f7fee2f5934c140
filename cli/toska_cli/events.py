"""`toska events`: asks the events service, and prints what it says for people."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

from pydantic import TypeAdapter
from toska_common.contracts.eventing import DeadLetterEntry, GroupEntry, TopicEntry
from toska_common.errors import ConfigurationError

from toska_cli.admin_api import AdminApi
from toska_cli.running import get_running_mesh
from toska_cli.terminal import plain

PREFIX = "/api/v1/events"
_PAGE = 500
_WIDTH = 100

_TOPICS: TypeAdapter[list[TopicEntry]] = TypeAdapter(list[TopicEntry])
_GROUPS: TypeAdapter[list[GroupEntry]] = TypeAdapter(list[GroupEntry])
_LETTERS: TypeAdapter[list[DeadLetterEntry]] = TypeAdapter(list[DeadLetterEntry])


def find_events(url: str | None, home: Path | None) -> AdminApi:
    """The events service on `url`, or that of the mesh that runs here.

    Raises:
        ConfigurationError: No mesh runs there, or there is no token for it.
    """
    if url is None:
        mesh = get_running_mesh(home)
        url, home = mesh.urls["events"], mesh.home
    return AdminApi.find(url, home, what="the events service")


def follow(
    api: AdminApi, topics: Sequence[str], where: Sequence[str], *, beginning: bool, count: int, as_json: bool
) -> None:
    """Print events as they come."""
    query = [("topic", topic) for topic in topics] + [("where", item) for item in _pairs(where)]
    if beginning:
        query.append(("beginning", "true"))
    for seen, event in enumerate(_events(api.stream(f"{PREFIX}/stream?{urlencode(query)}")), start=1):
        sys.stdout.write((json.dumps(event) if as_json else summarize(event)) + "\n")
        sys.stdout.flush()
        if seen == count:
            return


def publish_event(
    api: AdminApi, topic: str, data: str, *, key: str | None, delay: str | None, attributes: Sequence[str]
) -> None:
    """Publish an event, and print its id.

    Raises:
        ConfigurationError: The data are not JSON.
    """
    text = sys.stdin.read() if data == "-" else data
    try:
        payload = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the data are not JSON: {error} (quote text twice: '\"text\"')") from error
    body: dict[str, Any] = {"topic": topic, "data": payload}
    if key is not None:
        body["key"] = key
    if delay is not None:
        body["delay"] = delay
    if attributes:
        body["attributes"] = dict(item.split("=", 1) for item in _pairs(attributes))
    sys.stdout.write(api.post(f"{PREFIX}/publish", body)["ids"][0] + "\n")


def show_topics(api: AdminApi, *, as_json: bool) -> None:
    """Print topics."""
    found = api.get(f"{PREFIX}/topics")
    rows = [("TOPIC", "KEPT", "BYTES", "PUBLISHED", "LAST")]
    for entry in _TOPICS.validate_python(found):
        last = f"{entry.last_at:%Y-%m-%d %H:%M:%S}" if entry.last_at else "-"
        rows.append((entry.name, _count(entry.events), _count(entry.bytes), _count(entry.published), last))
    _write(found, table(rows) if rows[1:] else ["no topics"], as_json=as_json)


def show_groups(api: AdminApi, *, as_json: bool) -> None:
    """Print groups."""
    found = api.get(f"{PREFIX}/groups")
    rows: list[tuple[str, ...]] = [("GROUP", "MEMBERS", "LAG", "IN HAND", "DELAYED", "DEAD", "TOPICS")]
    for entry in _GROUPS.validate_python(found):
        numbers = (entry.members, entry.lag, entry.unsettled, entry.delayed, entry.dead)
        rows.append((entry.name, *map(_count, numbers), " ".join(entry.topics)))
    _write(found, table(rows) if rows[1:] else ["no groups"], as_json=as_json)


def seek_group(api: AdminApi, group: str, *, since: str | None, offset: int | None, beginning: bool) -> None:
    """Move a group.

    Raises:
        ConfigurationError: None or several of the three are given.
    """
    given = {"time": since, "offset": offset, "beginning": beginning or None}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        raise ConfigurationError("say where from: one of --since, --offset and --beginning")
    entry = GroupEntry.model_validate(api.post(f"{PREFIX}/groups/{quote(group, safe='')}/seek", chosen))
    sys.stdout.write(f"{entry.name} is going to be given {entry.lag} events\n")


def show_dead_letters(api: AdminApi, group: str | None, *, as_json: bool) -> None:
    """Print dead letters, all pages of them."""
    found: list[Any] = []
    while True:
        query = {"limit": str(_PAGE), "after": found[-1]["id"] if found else "", **({"group": group} if group else {})}
        page = api.get(f"{PREFIX}/dead-letters?{urlencode(query)}")
        if not page:
            break
        found += page
    rows = [("ID", "GROUP", "TOPIC", "ATTEMPTS", "DIED", "REASON")]
    for letter in _LETTERS.validate_python(found):
        topic, died = str(letter.event["type"]), f"{letter.died_at:%Y-%m-%d %H:%M:%S}"
        rows.append((letter.id, letter.group, topic, str(letter.attempts), died, letter.reason))
    _write(found, table(rows) if rows[1:] else ["no dead letters"], as_json=as_json)


def show_dead_letter(api: AdminApi, letter: str) -> None:
    """Print one, as JSON: its event is what people look for."""
    found = api.get(f"{PREFIX}/dead-letters/{quote(letter, safe='')}")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def settle_dead_letters(api: AdminApi, action: str, ids: Sequence[str], group: str | None) -> None:
    """Drive again, or forget.

    Raises:
        ConfigurationError: Neither ids nor a group is given, or both are.
    """
    if bool(ids) == bool(group):
        raise ConfigurationError("say which: ids, or --group for all of a group")
    body = {"ids": list(ids)} if ids else {"group": group}
    done = {"redrive": "driven again", "purge": "forgotten"}[action]
    sys.stdout.write(f"{api.post(f'{PREFIX}/dead-letters/{action}', body)['count']} {done}\n")


def summarize(event: Mapping[str, Any]) -> str:
    """An event in one line."""
    moment = str(event.get("time", ""))[11:23]
    about = " ".join(f"{name}={event[name]}" for name in ("subject", "partitionkey") if event.get(name))
    data = event["data_base64"] if "data_base64" in event else json.dumps(event.get("data"))
    line = f"{moment}  {event['type']:<28}  {event['source']}  {about}  {data}"
    return plain(line)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under one another; the last column takes what it needs."""
    clean = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in clean) for place in range(len(clean[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in clean
    ]


def _events(lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    # Server-sent events: one of them ends with an empty line, and other fields than its data are the reader's to skip.
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            found = json.loads("\n".join(data))
            data.clear()
            if isinstance(found, dict) and "specversion" in found:
                yield cast("Mapping[str, Any]", found)


def _count(number: int | None) -> str:
    return "?" if number is None else str(number)


def _pairs(items: Sequence[str]) -> Sequence[str]:
    for item in items:
        if "=" not in item:
            raise ConfigurationError(f"{item!r}: write NAME=VALUE")
    return items


def _write(found: Any, lines: Sequence[str], *, as_json: bool) -> None:
    sys.stdout.write(json.dumps(found) + "\n" if as_json else "\n".join(lines) + "\n")
