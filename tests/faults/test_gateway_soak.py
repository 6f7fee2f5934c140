"""Mixed traffic through renewals and kills of workers, and not one wrong byte: `make soak` runs minutes of it."""

import asyncio
import os
import random
import signal

import psutil
from toska_gateway.supervisor import Supervisor
from toska_tests.gateways import cluster, route, snapshot_of
from toska_tests.soak_clients import KINDS, Book, keep_doing
from toska_tests.soak_upstream import SoakUpstream
from toska_tests.waiting import wait_until

SECONDS = float(os.environ.get("TOSKA_SOAK_SECONDS", "10"))
_DRAIN_S = 10.0


async def test_hours_of_traffic_through_renewals_and_kills_have_no_wrong_byte() -> None:
    book, app = Book(), SoakUpstream()
    supervisor = Supervisor("127.0.0.1", 0, 2, drain_s=_DRAIN_S)
    renewals = kills = 0
    async with app.run() as port, supervisor.run():
        document = {"clusters": {"app": cluster(port)}, "routes": [route("all", policies={"upgrade": ["websocket"]})]}
        await supervisor.apply(snapshot_of(document))
        await until_all_run(supervisor)
        stop, chance = asyncio.Event(), random.Random(1)
        ends = asyncio.get_running_loop().time() + SECONDS
        async with asyncio.TaskGroup() as group:
            for kind, (_, count, _) in KINDS.items():
                for seed in range(count):
                    group.create_task(keep_doing(kind, supervisor.address, book, stop, seed))
            while asyncio.get_running_loop().time() < ends:
                await asyncio.sleep(min(4.0, SECONDS / 6))  # between disturbances traffic runs as it is
                if (renewals + kills) % 2:
                    await kill_one(supervisor, chance, book)
                    kills += 1
                else:
                    await supervisor.renew()
                    renewals += 1
            stop.set()
        report = {
            "seconds": SECONDS, "requests": book.requests, "MB out": book.bytes_out // 10**6,
            "MB in": book.bytes_in // 10**6, "renewals": renewals, "kills": kills, "cut by kills": book.cut_by_kills,
            "lost": len(book.lost), "wrong": len(book.wrong) + len(app.wrong), "rounds": dict(book.rounds),
            "served": dict(app.served), "worker MB": memory(supervisor),
        }  # fmt: skip
        print(report, book.lost[:20], [*book.wrong, *app.wrong][:20])
        assert [*book.wrong, *app.wrong] == [], report
        assert book.lost == [], report
        assert all(book.rounds[kind] for kind in KINDS), report
        assert renewals
        assert kills


async def until_all_run(supervisor: Supervisor) -> None:
    """Wait until every slot has a worker that serves."""
    await wait_until(lambda: [one.state for one in supervisor.workers()].count("running") == 2)


async def kill_one(supervisor: Supervisor, chance: random.Random, book: Book) -> None:
    """Kill a worker, and wait for the next."""
    victim = chance.choice([worker.pid for worker in supervisor.workers() if worker.state == "running"])
    clock = asyncio.get_running_loop().time
    book.last_kill = clock()
    os.kill(victim, signal.SIGKILL)
    await wait_until(lambda: victim not in [worker.pid for worker in supervisor.workers()])
    await until_all_run(supervisor)
    book.last_kill = clock()


def memory(supervisor: Supervisor) -> list[int]:
    """What each worker holds, in MB."""
    return [psutil.Process(worker.pid).memory_info().rss // 10**6 for worker in supervisor.workers()]
