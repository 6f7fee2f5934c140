"""A parent that has loaded all that sagas need, and forks a worker for each line of JSON on standard input.

    {"name": "a", "database": "sqlite:///srv", "books": "/srv", "lease": "2s", "start": {"order-1": {...}},
     "die_at": {"order-1": "charge after"}, "gate": "/srv/gate"}

Each worker appends what it has to tell to `books`/NAME.told: its executor when it is open, then each saga that it
started and saw end. It works until it is killed, or its parent ends.
"""

import json
import os
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from toska_common.sagas import Sagas, SagaSettings
from toska_tests import saga_shop

for loaded in ("toska_common.sagas.worker", "toska_common.sagas.migrations", "toska_common.database.opened", "asyncpg"):
    import_module(loaded)
import_module("toska_common.logging").configure_logging(level="info", format="text", service="crew")


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            work(order)
            os._exit(0)
        # Its end is noticed, so that it leaves no zombie.
        threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
        print(json.dumps({"name": order["name"], "pid": pid}), flush=True)


def work(order: dict[str, Any]) -> None:
    folder = Path(order["books"])
    saga_shop.books.open(folder)
    saga_shop.die_at = order.get("die_at", {})
    saga_shop.gate = Path(order["gate"]) if "gate" in order else None
    settings = SagaSettings(database_url=SecretStr(order["database"]), lease=order["lease"])
    anyio.run(live, settings, order, folder / f"{order['name']}.told", backend_options={"use_uvloop": True})


async def live(settings: SagaSettings, order: dict[str, Any], told: Path) -> None:
    def tell(**news: Any) -> None:
        with told.open("a", encoding="utf-8") as file:
            file.write(json.dumps(news) + "\n")

    async def follow(saga_id: str) -> None:
        detail = await sagas.wait(saga_id)
        tell(saga=saga_id, state=detail.state, executor=detail.executor)

    sagas = Sagas("orders", [saga_shop.place_order], settings=settings, registry=CollectorRegistry())
    async with sagas, anyio.create_task_group() as group:
        await sagas.list()
        for saga_id, wanted in order.get("start", {}).items():
            await sagas.start(saga_shop.place_order, saga_shop.Order.model_validate(wanted), id=saga_id)
            group.start_soon(follow, saga_id)
        tell(pid=os.getpid(), open=True)
        while os.getppid() == PARENT:  # noqa: ASYNC110 - another process's end is no event
            await anyio.sleep(0.1)
        os._exit(0)


PARENT = os.getpid()
if __name__ == "__main__":
    main()
