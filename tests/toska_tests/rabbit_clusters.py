"""Three nodes of RabbitMQ on one machine that are a cluster, any of which can be killed and come back."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.to_thread import run_sync

from toska_tests.rabbit_servers import RabbitServer, rabbit_server
from toska_tests.waiting import wait_until

_JOIN = "ok = rabbit:stop(), ok = rabbit_mnesia:join_cluster('{node}', disc), ok = rabbit:start()."
_RUNNING = "length(rabbit_nodes:all_running())."
_LEADER = """{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), \
element(2, amqqueue:get_pid(Queue))."""


class RabbitCluster:
    """Its nodes, in the order in which they joined."""

    def __init__(self, nodes: Sequence[RabbitServer]) -> None:
        self.nodes = nodes

    def url(self, *order: int) -> str:
        """As `TOSKA_EVENTS_URL` has it, with the nodes in this order."""
        credentials, _, _ = self.nodes[0].url.rpartition("@")
        return f"{credentials}@{','.join(f'127.0.0.1:{self.nodes[number].port}' for number in order)}/"

    async def leader_of(self, queue: str, *, asking: int) -> int:
        """The number of the node that a quorum queue is led from."""
        said = await run_sync(self.nodes[asking].evaluate, _LEADER.format(queue=queue))
        return next(number for number, node in enumerate(self.nodes) if node.node in said)

    async def start(self) -> None:
        """Start all nodes, and have them join the first."""
        async with anyio.create_task_group() as tasks:
            for node in self.nodes:
                tasks.start_soon(node.start)
        first, *others = self.nodes
        for node in others:
            await run_sync(node.evaluate, _JOIN.format(node=first.node))
            await node.wait_until_ready()
        await self.wait_until_whole()

    async def wait_until_whole(self) -> None:
        """Wait until each node knows all others to be up."""
        await wait_until(self._is_whole, within=120, what="all nodes to run", every=0.2)

    async def _is_whole(self) -> bool:
        said = [await run_sync(node.evaluate, _RUNNING) for node in self.nodes]
        return all(f"{{ok, {len(self.nodes)}}}" in one for one in said)


@asynccontextmanager
async def rabbit_cluster(size: int = 3) -> AsyncGenerator[RabbitCluster]:
    """A cluster of the block's own."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(rabbit_server())
        nodes = [first, *(stack.enter_context(rabbit_server(first=first)) for _ in range(size - 1))]
        cluster = RabbitCluster(nodes)
        await cluster.start()
        yield cluster
