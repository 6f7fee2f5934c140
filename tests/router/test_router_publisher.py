"""The publisher by itself: a change is worked out once, however many gateways wait for it."""

import time
from datetime import timedelta

import anyio
from toska_common.clock import SystemClock
from toska_common.contracts.routing import Match, Respond, Route, RoutingDocument, Snapshot, SnapshotPoll
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_router.publisher import Publisher

ROUTES, GATEWAYS = 1000, 100
ROUTE_LIST = [
    Route(name=f"r{number}", match=Match(path=f"/{number}"), respond=Respond(body="old")) for number in range(ROUTES)
]


def snapshot(previous: Snapshot | None = None, **changed: Route) -> Snapshot:
    routes = tuple(changed.get(route.name, route) for route in ROUTE_LIST)
    return build_snapshot(build_table(RoutingDocument(routes=routes)), previous=previous)


async def test_a_hundred_waiting_gateways_have_a_change_within_50_ms() -> None:
    publisher = Publisher(SystemClock())
    old = snapshot()
    publisher.publish(old)
    took: list[float] = []
    for attempt in range(5):
        has = publisher.version
        changed = Route(name="r7", match=Match(path="/7"), respond=Respond(body=f"new {attempt}"))
        new = snapshot(publisher.snapshot, r7=changed)
        answers: list[bytes | None] = []
        began = 0.0

        async def wait(number: int, has: str = has, answers: list[bytes | None] = answers) -> None:
            poll = SnapshotPoll(gateway=f"gateway-{number}", version=has)
            answers.append(await publisher.answer(poll, timedelta(seconds=60)))

        async with anyio.create_task_group() as group:
            for number in range(GATEWAYS):
                group.start_soon(wait, number)
            while publisher.waiting < GATEWAYS:
                await anyio.lowlevel.checkpoint()
            began = time.thread_time()
            publisher.publish(new)
        took.append(time.thread_time() - began)
        [answer] = set(answers)
        assert answer is not None
        assert len(answer) < 500
    # Processor time, and the best of a few: what others do with the machine meanwhile is not the publisher's.
    assert min(took) < 0.05
