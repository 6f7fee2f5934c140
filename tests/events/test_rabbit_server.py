"""The rig itself: a broker that forgot nothing when it was killed, and leaves nothing behind."""

import aiormq
import psutil
import pytest
from toska_tests.rabbit_servers import RabbitServer, rabbit_server

pytestmark = pytest.mark.anyio


async def test_a_killed_broker_keeps_what_it_confirmed_and_leaves_no_process() -> None:
    before = {process.pid for process in psutil.process_iter()}
    with rabbit_server() as server:
        await server.start()
        await _publish(server)
        server.settle()
        await server.restart()
        connection = await aiormq.connect(server.url)
        channel = await connection.channel()
        assert (await channel.basic_get("kept")).body == b"here"
        await connection.close()
        ours = [process for process in psutil.process_iter() if process.pid not in before and _erlang(process)]
        assert ours
    assert not [process for process in ours if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


async def _publish(server: RabbitServer) -> None:
    connection = await aiormq.connect(server.url)
    channel = await connection.channel()
    await channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
    await channel.basic_publish(b"here", routing_key="kept")
    await connection.close()


def _erlang(process: psutil.Process) -> bool:
    try:
        return process.name() in ("beam.smp", "epmd", "erl_child_setup")
    except psutil.NoSuchProcess:
        return False
