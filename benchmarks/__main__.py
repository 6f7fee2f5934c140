"""Measure a part of the mesh beside its peers, show what was found and keep it in bench-results/."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection
from types import FrameType

import structlog
from rich.console import Console
from toska_common.clock import now_utc

from benchmarks import (
    BenchError,
    balancing,
    event_broker,
    event_latency,
    event_log,
    limits,
    routes,
    startup,
    translation,
    xds,
)
from benchmarks.client import bench as client_bench
from benchmarks.discovery import bench as discovery_bench
from benchmarks.discovery import comparison as discovery
from benchmarks.discovery import crowd
from benchmarks.discovery.registries import REGISTRIES
from benchmarks.machine import Cores, describe_machine, split_cores
from benchmarks.outbox import bench as outbox_bench
from benchmarks.profiles import PROFILES
from benchmarks.proxies import bench as proxies_bench
from benchmarks.proxies import comparison as proxies
from benchmarks.proxies.stage import PROXIES
from benchmarks.report import Outcome, Report, commit, markdown, quote, save, together
from benchmarks.sagas import bench as sagas_bench
from benchmarks.snapshots import bench as snapshots_bench
from benchmarks.whole import run_all

_FIRST, _ALL = "proxies", "all"
_QUICK_EVENTS, _QUICK_INSTANCES = 2500, 20_000
BENCHES = (
    "proxies", "discovery", "crowd", "client", "balancing", "routes", "limits", "snapshots", "xds", "translation",
    "events", "outbox", "sagas", "startup",
)  # fmt: skip
_EVENTS = ("log", "rabbitmq", "latency")


def main(argv: list[str]) -> int:
    arguments = _parse(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    signal.signal(signal.SIGTERM, _leave)  # unwinds like Ctrl-C, so that everything started is ended
    try:
        if arguments.bench == _ALL:
            run_all(console, BENCHES, quick=arguments.quick, quoted=arguments.update_readme)
        else:
            _run(console, arguments)
    except BenchError as error:
        console.print(f"[bold red]bench failed:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    benches = parser.add_subparsers(dest="bench", metavar="BENCH")
    _add_proxies(benches.add_parser(_FIRST, help="the gateway beside nginx, haproxy and Envoy (the default)"))
    _add_discovery(benches.add_parser("discovery", help="the registry beside Consul"))
    _add_crowd(benches.add_parser("crowd", help="the registry with 100,000 instances and their renewals"))
    _add_startup(benches.add_parser("startup", help="toska up: time to the first answer, memory, time to leave"))
    _add_client(benches.add_parser("client", help="calls from service to service: plain clients and the SDK's"))
    _add_balancing(benches.add_parser("balancing", help="the balancers by themselves, up to 100,000 endpoints"))
    _add_routes(benches.add_parser("routes", help="the routing table by itself: a look-up among up to 10,000 routes"))
    _add_snapshots(benches.add_parser("snapshots", help="snapshots and deltas, and how soon a change is served"))
    _add_limits(benches.add_parser("limits", help="rate limits by themselves: what a take costs, what keys weigh"))
    _add_xds(benches.add_parser("xds", help="an xDS push to 100 simulated clients, in both variants"))
    _add_translation(
        benches.add_parser("translation", help="routing in Envoy's words: up to 10,000 routes, and a change")
    )
    _add_outbox(benches.add_parser("outbox", help="the outbox relay beside an outbox as it is usually written"))
    _add_sagas(benches.add_parser("sagas", help="sagas beside bare workflows of DBOS"))
    _add_events(benches.add_parser("events", help="the embedded event log, and RabbitMQ beside bare aio-pika"))
    _add_rounds(benches.add_parser(_ALL, help="all of them, one after the other (with --quick and --update-readme)"), 0)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv = [_FIRST, *argv]
    arguments = parser.parse_args(argv)
    if arguments.update_readme and arguments.bench == _FIRST and set(arguments.parts) != set(proxies_bench.PARTS):
        parser.error("the pages quote all parts together: leave out --parts, or --update-readme")
    if arguments.quick:
        arguments.rounds, arguments.seconds = min(arguments.rounds, 2), 1
        if "events" in arguments:
            arguments.events = min(arguments.events, _QUICK_EVENTS)
        if "instances" in arguments:
            arguments.instances = min(arguments.instances, _QUICK_INSTANCES)
    return arguments


def _add_rounds(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a figure to quote")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--update-readme", action="store_true", help="put the tables into the pages that quote them")


def _add_size(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    _add_rounds(parser, rounds)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)


def _add_proxies(parser: argparse.ArgumentParser) -> None:
    _add_size(parser, rounds=7)
    parser.add_argument("--parts", type=_some_of(proxies_bench.PARTS), default=proxies_bench.PARTS, metavar="A,B")
    parser.add_argument("--routes", type=_numbers, default=(500, 1), metavar="N,M", help="sizes of the route table")
    parser.add_argument("--profiles", type=_some_of(PROFILES), default=("bare", "browser"), metavar="A,B")
    parser.add_argument("--proxies", type=_some_of(PROXIES), default=tuple(PROXIES), metavar="A,B")
    parser.add_argument("--rate", type=int, default=8000, help="requests/s of the load that does not wait")
    parser.set_defaults(run=_run_proxies)


def _add_discovery(parser: argparse.ArgumentParser) -> None:
    _add_size(parser, rounds=3)
    parser.add_argument("--watchers", type=int, default=1000, help="blocked queries that a change is told to")
    parser.add_argument("--registries", type=_some_of(REGISTRIES), default=tuple(REGISTRIES), metavar="A,B")
    parser.set_defaults(run=_run_discovery)


def _add_crowd(parser: argparse.ArgumentParser) -> None:
    _add_size(parser, rounds=1)
    parser.add_argument("--instances", type=int, default=100_000)
    parser.set_defaults(run=_run_crowd)


def _add_startup(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 5)
    parser.set_defaults(run=_run_startup)


def _add_client(parser: argparse.ArgumentParser) -> None:
    _add_size(parser, rounds=3)
    parser.set_defaults(run=_run_client)


def _add_balancing(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 3)
    parser.set_defaults(run=_run_balancing)


def _add_routes(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 3)
    parser.set_defaults(run=_run_routes)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 3)
    parser.set_defaults(run=_run_limits)


def _add_xds(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 10)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--clusters", type=int, default=1000, help="each with ten endpoints")
    parser.set_defaults(run=_run_xds)


def _add_translation(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 3)
    parser.set_defaults(run=_run_translation)


def _add_events(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 3)
    parser.add_argument("--events", type=int, default=50_000, help="of the largest measurement")
    parser.add_argument("--parts", type=_some_of(_EVENTS), default=_EVENTS, metavar="A,B")
    parser.add_argument("--rate", type=int, default=500, help="events/s of the load that does not wait")
    parser.add_argument("--seconds", type=int, default=10, help="of that load")
    parser.set_defaults(run=_run_events)


def _add_outbox(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 3)
    parser.add_argument("--events", type=int, default=10_000, help="that wait for the relay")
    parser.add_argument("--rate", type=int, default=100, help="transactions/s of the load that does not wait")
    parser.add_argument("--seconds", type=int, default=10, help="of that load")
    parser.set_defaults(run=_run_outbox)


def _add_sagas(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 3)
    parser.add_argument("--sagas", type=int, default=300, help="one after the other, and as many at once")
    parser.add_argument("--at-once", type=int, default=16)
    parser.set_defaults(run=_run_sagas)


def _add_snapshots(parser: argparse.ArgumentParser) -> None:
    _add_rounds(parser, 1)
    parser.add_argument("--routes", type=_numbers, default=(1_000, 10_000), metavar="N,M", help="sizes of the table")
    parser.add_argument("--changes", type=int, default=100, help="of one route, each timed to its effect")
    parser.set_defaults(run=_run_snapshots)


def _some_of(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := set(chosen).difference(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is not one of {', '.join(known)}")
        return chosen

    return parse


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _run_proxies(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    options = proxies.Options(
        arguments.proxies, arguments.rounds, arguments.seconds, arguments.connections, arguments.rate
    )
    return proxies_bench.run(
        console, options, cores, parts=arguments.parts, profiles=arguments.profiles, routes=arguments.routes
    )


def _run_discovery(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    options = discovery.Options(arguments.rounds, arguments.seconds, arguments.connections, arguments.watchers)
    return discovery_bench.run(console, options, arguments.registries, cores)


def _run_crowd(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    return crowd.run(console, crowd.Options(arguments.instances, arguments.seconds, arguments.connections), cores)


def _run_startup(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    return startup.run(console, startup.Options(arguments.rounds), cores)


def _run_client(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    options = client_bench.Options(arguments.rounds, arguments.seconds, arguments.connections)
    return client_bench.run(console, options, cores)


def _run_balancing(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    return balancing.run(console, balancing.Options(arguments.rounds), cores)


def _run_routes(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    return routes.run(console, routes.Options(arguments.rounds), cores)


def _run_translation(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    return translation.run(console, translation.Options(arguments.rounds), cores)


def _run_snapshots(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    changes = 10 if arguments.quick else arguments.changes
    return snapshots_bench.run(console, snapshots_bench.Options(arguments.routes, changes), cores)


def _run_limits(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    return limits.run(console, limits.Options(arguments.rounds), cores)


def _run_events(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    few = arguments.events * 2 // 5
    paced = event_latency.Options(arguments.rounds, arguments.rate, arguments.seconds)
    parts: dict[str, Callable[[], Outcome]] = {
        "log": lambda: event_log.run(console, event_log.Options(arguments.rounds, arguments.events), cores),
        "rabbitmq": lambda: event_broker.run(console, event_broker.Options(arguments.rounds, few), cores),
        "latency": lambda: event_latency.run(console, paced, cores),
    }
    return together({part: parts[part]() for part in arguments.parts})


def _run_outbox(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    options = outbox_bench.Options(arguments.rounds, arguments.events, arguments.rate, arguments.seconds)
    return outbox_bench.run(console, options, cores)


def _run_sagas(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    sagas = min(50, arguments.sagas) if arguments.quick else arguments.sagas
    return sagas_bench.run(console, sagas_bench.Options(arguments.rounds, sagas, arguments.at_once), cores)


def _run_xds(console: Console, arguments: argparse.Namespace, cores: Cores) -> Outcome:
    return xds.run(console, xds.Options(arguments.rounds, arguments.clients, arguments.clusters), cores)


def _run(console: Console, arguments: argparse.Namespace) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    machine, cores = describe_machine(), split_cores()
    os.sched_setaffinity(0, cores.load)  # the bench itself stays away from what it measures
    outcome: Outcome = arguments.run(console, arguments, cores)
    report = Report(
        bench=arguments.bench,
        measured_at=now_utc().isoformat(timespec="seconds"),
        commit=commit(),
        machine=machine.as_dict(),
        settings=outcome.settings,
        figures=outcome.figures,
    )
    command = f"python -m benchmarks {arguments.bench}"
    text = markdown(outcome.tables, machine, command)
    console.print(f"kept in {save(report, text)}", style="dim", highlight=False)
    if arguments.update_readme:
        if outcome.disturbed:
            raise BenchError("the machine was not quiet enough for figures that are quoted; the pages stay as they are")
        pages = quote(arguments.bench, text, markdown(outcome.headline, machine, command))
        console.print(f"quoted in {', '.join(pages)}", style="dim", highlight=False)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
