"""The `toska` command's words. Each imports what it needs when it is called: none waits for what others need."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from toska_cli.events_commands import events
from toska_cli.sagas_commands import sagas

app = typer.Typer(
    name="toska",
    help="Toska Mesh: one command runs a whole service mesh.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(events, name="events")
app.add_typer(sagas, name="sagas")

routes = typer.Typer(help="Show and change the routing that the router's API has.", no_args_is_help=True)
app.add_typer(routes, name="routes")


class View(StrEnum):
    """What `toska top` shows a line of."""

    ROUTE = "route"
    CLUSTER = "cluster"
    ENDPOINT = "endpoint"


class Steer(StrEnum):
    """What `toska rollout` does with one."""

    PROMOTE = "promote"
    PAUSE = "pause"
    RESUME = "resume"
    ROLLBACK = "rollback"


class Engine(StrEnum):
    """What moves requests."""

    PYTHON = "python"
    ENVOY = "envoy"


EngineChoice = Annotated[
    Engine | None, typer.Option("--engine", help="What moves requests; default: TOSKA_GATEWAY_ENGINE or python")
]

Home = Annotated[Path | None, typer.Option("--home", help="State folder of the mesh; default: TOSKA_HOME or .toska")]

Admin = Annotated[
    str | None, typer.Option("--admin", metavar="URL", help="Admin API of the gateway; default: the mesh's here")
]


Router = Annotated[
    str | None, typer.Option("--router", metavar="URL", help="The router's API; default: the mesh's here")
]


@app.command()
def up(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line with every URL when ready")] = False,
    no_examples: Annotated[bool, typer.Option("--no-examples", help="Run no example services")] = False,
    ports_from: Annotated[
        int | None, typer.Option("--ports-from", metavar="N", help="Move every port to N and up")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Gateway processes that move requests")
    ] = None,
    engine: EngineChoice = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the API documentation in a browser")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every log line, not only warnings")] = False,
    home: Home = None,
) -> None:
    """Run a whole mesh here, until Ctrl-C."""
    from toska_cli.importing import quick_imports

    with quick_imports():
        from toska_cli.plan import UpOptions
        from toska_cli.reporting import JsonReporter, TableReporter
        from toska_cli.up import up as run_up

    reporter = JsonReporter() if as_json else TableReporter(open_browser=open_browser)
    options = UpOptions(home=home, ports_from=ports_from, workers=workers, examples=not no_examples, engine=engine)
    run_up(options, reporter, verbose=verbose)


@app.command()
def down(home: Home = None) -> None:
    """Stop the mesh that runs here."""
    from toska_cli.down import down as run_down

    run_down(home)


@app.command()
def status(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line")] = False, home: Home = None
) -> None:
    """Show every service of the mesh that runs here. Exit status 1 if one of them is not ready."""
    from toska_cli.status import show_status

    if not show_status(home, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def gateways(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line")] = False, home: Home = None
) -> None:
    """Show which gateway runs which version of the routing. Exit status 1 if one is not at the newest."""
    from toska_cli.gateways import show_gateways

    if not show_gateways(home, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def rollouts(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line")] = False, home: Home = None
) -> None:
    """Show how far the rollouts are that move routes to a canary."""
    from toska_cli.rollouts import show_rollouts

    show_rollouts(home, as_json=as_json)


@app.command()
def rollout(
    name: Annotated[str, typer.Argument(help="Its name")],
    action: Annotated[Steer | None, typer.Argument(help="What to do with it; default: only show it")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line")] = False,
    home: Home = None,
) -> None:
    """Show a rollout, what its step sees and its history; or steer it. Exit status 1 if it was rolled back."""
    from toska_cli.rollouts import show_rollout

    if not show_rollout(home, name, None if action is None else action.value, as_json=as_json):
        raise typer.Exit(1)


@routes.command("apply")
def apply_routes(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Clusters, policies and routes in YAML or JSON")],
    *,
    prune: Annotated[bool, typer.Option("--prune", help="Take away what the file does not have")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing, and show what would be different")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why, for the history")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line")] = False,
    router: Router = None,
    home: Home = None,
) -> None:
    """Have the router's API hold what a file says: all of it in one step, or nothing."""
    from toska_cli.admin_api import AdminApi
    from toska_cli.routes import apply_document, read_document

    text = read_document(file)
    found = AdminApi.find_router(router, home)
    apply_document(found, text, prune=prune, dry_run=dry_run, reason=reason, as_json=as_json)


@routes.command("export")
def export_routes(router: Router = None, home: Home = None) -> None:
    """Print what the router's API has, so that it can be applied again."""
    from toska_cli.admin_api import AdminApi
    from toska_cli.routes import export_document

    export_document(AdminApi.find_router(router, home))


@app.command()
def logs(
    service: Annotated[
        str | None, typer.Argument(help="discovery, events, router, gateway, payments …; default: all")
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines to begin with")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they were written")] = False,
    home: Home = None,
) -> None:
    """Show what the services of a mesh have logged."""
    from toska_cli.logs import show_logs
    from toska_cli.running import get_home

    show_logs(get_home(home) / "logs", service, lines=lines, follow=follow, raw=as_json)


@app.command()
def run(
    target: Annotated[
        str, typer.Argument(metavar="SERVICE|MODULE:APP", help="discovery, events, router, gateway or your app")
    ],
    host: Annotated[str, typer.Option(help="Address that your app binds")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of your app; 0 takes a free one", min=0, max=65535)] = 0,
) -> None:
    """Run one service of the mesh as a process of its own, or your app."""
    from toska_cli.run import run_target

    run_target(target, host, port)


@app.command()
def gateway(
    routes: Annotated[Path, typer.Option("--routes", help="Routing file to serve")],
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            help="Where requests are taken, as often as needed: host:port, http://…, https://… or unix:/path "
            "[default: 127.0.0.1:8080]",
        ),
    ] = None,
    admin: Annotated[str, typer.Option("--admin", help="host:port of the admin API")] = "127.0.0.1:8100",
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes that move requests")] = None,
    engine: EngineChoice = None,
    home: Home = None,
) -> None:
    """Run the gateway alone, by a routing file, with no other part of the mesh."""
    from toska_cli.run import run_gateway

    run_gateway(routes, listen or ["127.0.0.1:8080"], admin, workers, home, engine)


@app.command()
def migrate(
    *,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements, and change nothing")] = False,
    home: Home = None,
) -> None:
    """Bring the services' databases (TOSKA_DATABASE_URL) to the newest version; services do so when they start."""
    from toska_cli.run import migrate as run_migrate

    raise typer.Exit(run_migrate(sql=sql, home=home))


@app.command()
def reload(
    admin: Admin = None,
    home: Home = None,
) -> None:
    """Replace the gateway's workers by new processes, one after the other, without losing a request."""
    from toska_cli.admin_api import AdminApi
    from toska_cli.reload import reload as run_reload

    run_reload(AdminApi.find(admin, home))


@app.command()
def explain(
    method: Annotated[str, typer.Argument(help="GET, POST …")],
    url: Annotated[str, typer.Argument(help="An URL, or a path at the gateway")],
    headers: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header; may be repeated")
    ] = None,
    *,
    client: Annotated[str, typer.Option(help="Address that the request comes from")] = "127.0.0.1",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line")] = False,
    admin: Admin = None,
    home: Home = None,
) -> None:
    """Show where the gateway would send a request, by which policies, and why nowhere else. Nothing is sent.

    Exit status 1 if it would be refused.
    """
    from toska_cli.admin_api import AdminApi
    from toska_cli.explain import explain as run_explain

    request = {"method": method, "url": url, "headers": headers or [], "client": client}
    if not run_explain(AdminApi.find(admin, home), request, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def top(
    *,
    by: Annotated[View, typer.Option("--by", help="What a line of the table is")] = View.ROUTE,
    interval: Annotated[float, typer.Option("--interval", "-i", min=0.2, max=60, help="Seconds between two looks")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Print one table over one interval, and end")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each interval, with everything")] = False,
    admin: Annotated[
        str | None, typer.Option("--admin", metavar="URL", help="Admin API of the gateway; default: the mesh's here")
    ] = None,
    home: Home = None,
) -> None:
    """Watch a gateway: rates, errors and percentiles of its routes, clusters or endpoints, as they are."""
    from toska_cli.admin_api import AdminApi
    from toska_cli.top import run_top

    run_top(AdminApi.find(admin, home), by.value, interval, once=once, as_json=as_json)


@app.command()
def version() -> None:
    """Print the version."""
    from toska_common import __version__

    typer.echo(f"toska {__version__}")
