"""`toska sagas …`: the words. Each imports what it needs when it is called."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

sagas = typer.Typer(help="Look at the sagas of services, and steer them.", no_args_is_help=True)


class State(StrEnum):
    """What a saga can be."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    STUCK = "stuck"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    CANCELLED = "cancelled"


Home = Annotated[Path | None, typer.Option("--home", help="State folder of the mesh; default: TOSKA_HOME or .toska")]
Admin = Annotated[
    str | None, typer.Option("--admin", metavar="URL", help="Admin API of the gateway; default: the mesh's here")
]
Direct = Annotated[
    str | None,
    typer.Option(
        "--direct",
        metavar="URL",
        help="Ask this instance instead of the gateway, with TOSKA_SAGAS_TOKEN or the token of the mesh: "
        "http://10.0.0.7:9003",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON")]
Service = Annotated[str, typer.Argument(help="A service, as `toska sagas services` shows it")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `toska sagas list` shows it")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it has ended or is stuck; exit status 1 if it is stuck")]


@sagas.command("services")
def list_services(as_json: Json = False, admin: Admin = None, home: Home = None) -> None:
    """List the services that run sagas and let them be looked at."""
    from toska_cli.sagas import find_gateway, show_services

    show_services(find_gateway(admin, home), as_json=as_json)


@sagas.command("list")
def list_sagas(
    service: Annotated[str | None, typer.Argument(help="Of this service; default: of all")] = None,
    *,
    state: Annotated[State | None, typer.Option("--state", "-s", help="Only those in this state")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only those of this name")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many of each service")] = 50,
    as_json: Json = False,
    admin: Admin = None,
    direct: Direct = None,
    home: Home = None,
) -> None:
    """List sagas, the newest first. Exit status 1 if a service does not tell of its own."""
    from toska_cli.sagas import find_sagas, show_sagas

    found = find_sagas(service, admin, direct, home)
    if not show_sagas(found, state=None if state is None else state.value, name=name, limit=limit, as_json=as_json):
        raise typer.Exit(1)


@sagas.command()
def show(
    service: Service,
    saga_id: Id,
    *,
    as_json: Json = False,
    admin: Admin = None,
    direct: Direct = None,
    home: Home = None,
) -> None:
    """Draw what a saga did, and undid, and why. Exit status 1 if it is stuck."""
    from toska_cli.sagas import find_saga_api, show_saga

    if not show_saga(find_saga_api(service, admin, direct, home), saga_id, as_json=as_json):
        raise typer.Exit(1)


@sagas.command()
def cancel(
    service: Service,
    saga_id: Id,
    *,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why, for its history")] = "",
    wait: Wait = False,
    as_json: Json = False,
    admin: Admin = None,
    direct: Direct = None,
    home: Home = None,
) -> None:
    """Have a saga turn back: what it did is undone, the last first."""
    from toska_cli.sagas import cancel_saga, find_saga_api

    api = find_saga_api(service, admin, direct, home)
    if not cancel_saga(api, saga_id, reason, wait=wait, as_json=as_json):
        raise typer.Exit(1)


@sagas.command()
def resume(
    service: Service,
    saga_id: Id,
    *,
    wait: Wait = False,
    as_json: Json = False,
    admin: Admin = None,
    direct: Direct = None,
    home: Home = None,
) -> None:
    """Let a saga go on that is stuck: its step or compensation is tried again, as often as at first."""
    from toska_cli.sagas import find_saga_api, resume_saga

    if not resume_saga(find_saga_api(service, admin, direct, home), saga_id, wait=wait, as_json=as_json):
        raise typer.Exit(1)


@sagas.command()
def token(service: Service, home: Home = None) -> None:
    """Print the token for the sagas of one service: its TOSKA_SAGAS_TOKEN, where it must not have the admin token."""
    from toska_cli.sagas import print_token

    print_token(service, home)
