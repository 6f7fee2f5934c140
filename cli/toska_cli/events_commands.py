"""`toska events …`: the words. Each imports what it needs when it is called."""

from pathlib import Path
from typing import Annotated

import typer

events = typer.Typer(help="Look at events, publish them, and care for those that failed.", no_args_is_help=True)
dlq = typer.Typer(help="Dead letters: events that a group could not handle.", no_args_is_help=True)
events.add_typer(dlq, name="dlq")

Home = Annotated[Path | None, typer.Option("--home", help="State folder of the mesh; default: TOSKA_HOME or .toska")]
Api = Annotated[
    str | None, typer.Option("--events", metavar="URL", help="The events service; default: the mesh's here")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON")]
Group = Annotated[str | None, typer.Option("--group", "-g", help="Of this group alone")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `toska events dlq list` shows them")]


@events.command()
def tail(
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC...", help="Topics or patterns: orders.*.*, 'mesh.#'")],
    *,
    where: Annotated[list[str] | None, typer.Option("--where", metavar="NAME=VALUE", help="Only with it")] = None,
    beginning: Annotated[bool, typer.Option("--beginning", help="From the oldest that is kept")] = False,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="End after so many; 0 for never")] = 0,
    as_json: Json = False,
    api: Api = None,
    home: Home = None,
) -> None:
    """Follow events as they are published, until Ctrl-C."""
    from toska_cli.events import find_events, follow

    follow(find_events(api, home), topics, where or [], beginning=beginning, count=count, as_json=as_json)


@events.command()
def publish(
    topic: Annotated[str, typer.Argument(help="Dotted words: orders.order.placed")],
    data: Annotated[str, typer.Argument(help="JSON, or - to read it from standard input")] = "null",
    *,
    key: Annotated[str | None, typer.Option("--key", "-k", help="Events of one key keep their order")] = None,
    delay: Annotated[str | None, typer.Option("--delay", help="Deliver no earlier than so long from now: 30s")] = None,
    attribute: Annotated[list[str] | None, typer.Option("--attribute", "-a", metavar="NAME=VALUE")] = None,
    api: Api = None,
    home: Home = None,
) -> None:
    """Publish an event, and print its id once it is safe."""
    from toska_cli.events import find_events, publish_event

    publish_event(find_events(api, home), topic, data, key=key, delay=delay, attributes=attribute or [])


@events.command("topics")
def list_topics(as_json: Json = False, api: Api = None, home: Home = None) -> None:
    """List topics, with what is kept of each."""
    from toska_cli.events import find_events, show_topics

    show_topics(find_events(api, home), as_json=as_json)


@events.command("groups")
def list_groups(as_json: Json = False, api: Api = None, home: Home = None) -> None:
    """List groups, with how far each is."""
    from toska_cli.events import find_events, show_groups

    show_groups(find_events(api, home), as_json=as_json)


@events.command()
def replay(
    group: Annotated[str, typer.Argument(help="A group without members: stop them first")],
    *,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="2026-01-31T12:00:00Z")] = None,
    offset: Annotated[int | None, typer.Option("--offset", min=0)] = None,
    beginning: Annotated[bool, typer.Option("--beginning", help="Everything that is kept")] = False,
    api: Api = None,
    home: Home = None,
) -> None:
    """Give a group events again, from here on."""
    from toska_cli.events import find_events, seek_group

    seek_group(find_events(api, home), group, since=since, offset=offset, beginning=beginning)


@dlq.command("list")
def list_dead(group: Group = None, as_json: Json = False, api: Api = None, home: Home = None) -> None:
    """List dead letters with the reasons, the oldest first."""
    from toska_cli.events import find_events, show_dead_letters

    show_dead_letters(find_events(api, home), group, as_json=as_json)


@dlq.command()
def show(letter: Annotated[str, typer.Argument(metavar="ID")], api: Api = None, home: Home = None) -> None:
    """Print one dead letter, with its event."""
    from toska_cli.events import find_events, show_dead_letter

    show_dead_letter(find_events(api, home), letter)


@dlq.command()
def redrive(ids: Ids = None, group: Group = None, api: Api = None, home: Home = None) -> None:
    """Give dead letters to their groups again: those named, or all of a group."""
    from toska_cli.events import find_events, settle_dead_letters

    settle_dead_letters(find_events(api, home), "redrive", ids or [], group)


@dlq.command()
def purge(ids: Ids = None, group: Group = None, api: Api = None, home: Home = None) -> None:
    """Forget dead letters: those named, or all of a group."""
    from toska_cli.events import find_events, settle_dead_letters

    settle_dead_letters(find_events(api, home), "purge", ids or [], group)
