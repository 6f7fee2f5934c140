"""kill -9 at any moment: what was acknowledged is there afterwards, whole, and nothing else is made up."""

import contextlib
import os
import random
import signal
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import anyio
import httpx
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.errors import UpstreamError
from toska_tests.discovery_rig import ConsulPort, consul_port, discovery_process
from toska_tests.ports import free_ports

SECONDS, LEAST_ROUNDS = float(os.environ.get("TOSKA_DURABILITY_SECONDS", "8")), 3
"""How long to go on killing; `TOSKA_DURABILITY_SECONDS=600` for a soak."""
COPIES = 3


class Writer:
    """Writes one kind of thing over and over, and knows what was acknowledged and what may or may not have been."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged = 0
        self.asked = 0

    async def run(self, consul: ConsulClient, port: ConsulPort) -> None:
        """Write until the registry is gone."""
        while True:
            self.asked = self.acknowledged + 1
            await self.write(consul, port)
            self.acknowledged = self.asked

    async def write(self, consul: ConsulClient, port: ConsulPort) -> None:
        raise NotImplementedError

    async def check(self, consul: ConsulClient, port: ConsulPort) -> None:
        """See that what was acknowledged is there; take what was not as it is."""
        raise NotImplementedError

    def settle(self, found: int) -> None:
        assert found in {self.acknowledged, self.asked}, self.name
        self.acknowledged = found


class KeyWriter(Writer):
    """Counts in a key."""

    async def write(self, consul: ConsulClient, port: ConsulPort) -> None:
        await consul.kv_put(self.name, str(self.asked).encode())

    async def check(self, consul: ConsulClient, port: ConsulPort) -> None:
        found, _ = await consul.kv_get(self.name)
        self.settle(0 if found is None else int(found.value))


class PairWriter(Writer):
    """Counts in two keys and in the metadata of a node at once."""

    async def write(self, consul: ConsulClient, port: ConsulPort) -> None:
        value = b64encode(str(self.asked).encode()).decode()
        keys = [{"KV": {"Verb": "set", "Key": f"{self.name}/{side}", "Value": value}} for side in "ab"]
        node = {"Node": self.name, "Address": "10.0.0.1", "Meta": {"count": str(self.asked)}}
        assert (await port.put("txn", [*keys, {"Node": {"Verb": "set", "Node": node}}])).status == 200

    async def check(self, consul: ConsulClient, port: ConsulPort) -> None:
        found, _ = await consul.kv_list(f"{self.name}/")
        assert len(found) in {0, 2}
        assert len({(entry.value, entry.modify_index) for entry in found}) <= 1
        node = await port.read(f"catalog/node/{self.name}")
        counted = {(entry.value.decode(), entry.modify_index) for entry in found}
        assert counted == (set() if node is None else {(node["Node"]["Meta"]["count"], node["Node"]["ModifyIndex"])})
        self.settle(int(found[0].value) if found else 0)


class LockWriter(Writer):
    """Takes a lock and gives it back, always with the same session; the LockIndex counts."""

    session = ""

    async def write(self, consul: ConsulClient, port: ConsulPort) -> None:
        if not self.session:
            self.session = await consul.create_session()
        held = await consul.kv_acquire(self.name, b"v", self.session)
        assert held is not None
        assert held.lock_index == self.asked
        assert await consul.kv_release(self.name, b"v", self.session)

    async def check(self, consul: ConsulClient, port: ConsulPort) -> None:
        if self.session:
            await consul.renew_session(self.session)
        found, _ = await consul.kv_get(self.name)
        self.settle(0 if found is None else found.lock_index)
        if found is not None and found.session:
            assert await consul.kv_release(self.name, b"v", self.session)


class SessionWriter(Writer):
    """Opens a session that holds a key, and ends it together with the key, by turns."""

    async def write(self, consul: ConsulClient, port: ConsulPort) -> None:
        if self.asked % 2:
            self.session = await consul.create_session(name=self.name, lock_delay=timedelta(), delete=True)
            assert await consul.kv_acquire(self.name, b"v", self.session) is not None
        else:
            await consul.destroy_session(self.session)

    async def check(self, consul: ConsulClient, port: ConsulPort) -> None:
        sessions = [item["ID"] for item in await port.read("session/list") if item["Name"] == self.name]
        held, _ = await consul.kv_get(self.name)
        assert held is None or [held.session] == sessions
        if sessions and held is None:  # it was killed between the one and the other
            await consul.destroy_session(sessions[0])
        is_open = held is not None
        self.settle(self.acknowledged if is_open == bool(self.acknowledged % 2) else self.asked)
        self.session = held.session if held is not None else ""


class ServiceWriter(Writer):
    """Registers one instance after another, and deregisters the last but one."""

    async def write(self, consul: ConsulClient, port: ConsulPort) -> None:
        await consul.register_service(ServiceRegistration(self.name, f"{self.name}-{self.asked}"))
        await consul.deregister_service(f"{self.name}-{self.asked - 1}")

    async def check(self, consul: ConsulClient, port: ConsulPort) -> None:
        listed = {item.service.id for item in (await consul.catalog_service(self.name))[0]}
        last, next_ = f"{self.name}-{self.acknowledged}", f"{self.name}-{self.asked}"
        assert listed in ([{last}, {last, next_}, {next_}] if self.acknowledged else [set[str](), {next_}])
        self.settle(self.asked if next_ in listed else self.acknowledged)
        if len(listed) == 2:
            await consul.deregister_service(last)


KINDS: list[Callable[[str], Writer]] = [KeyWriter, PairWriter, LockWriter, SessionWriter, ServiceWriter]


async def write_until_killed(writer: Writer, consul: ConsulClient, port: ConsulPort) -> None:
    with contextlib.suppress(UpstreamError, httpx.TransportError):
        await writer.run(consul, port)


async def test_what_was_acknowledged_survives_being_killed_at_random_moments(tmp_path: Path) -> None:
    moments = random.Random(7)
    writers = [kind(f"writer-{number}-{copy}") for number, kind in enumerate(KINDS) for copy in range(COPIES)]
    first_port, newest = free_ports(2), 0
    rounds, until = 0, time.monotonic() + SECONDS
    while rounds < LEAST_ROUNDS or time.monotonic() < until:
        rounds += 1
        with discovery_process(tmp_path, first_port) as process:
            await process.wait_until_ready()
            async with (
                ConsulClient.open(process.consul, token=process.token) as consul,
                consul_port("embedded", process.consul, process.token) as port,
            ):
                assert (await port.get("kv/?keys")).index > newest
                for writer in writers:
                    await writer.check(consul, port)
                async with anyio.create_task_group() as group:
                    for writer in writers:
                        group.start_soon(write_until_killed, writer, consul, port)
                    await anyio.sleep(moments.uniform(0.05, 0.5))
                    newest = (await port.get("kv/?keys")).index
                    process.program.send(signal.SIGKILL)
    assert all(writer.acknowledged for writer in writers)
