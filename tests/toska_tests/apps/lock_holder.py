"""A process that holds a lock and writes to a store with its fencing value, again and again, until the store refuses.

Its environment: `REGISTRY` and `TOKEN`, `KEY` of the lock, `STORE` as URL. It renews a check of 300 ms that the lock is
bound to, and prints `refused` at the end. It does not mind losing the lock: that is the store's to notice.
"""

import os
import sys
from datetime import timedelta

import aiohttp
import anyio
from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_common.clients.consul_lock import Lock, LockLost

CHECK_TTL = timedelta(milliseconds=300)


async def renew(consul: ConsulClient, check_id: str) -> None:
    """Keep the check passing, for as long as this process runs."""
    while True:
        await consul.pass_check(check_id)
        await anyio.sleep(CHECK_TTL.total_seconds() / 5)


async def main() -> None:
    """Hold the lock until the store refuses."""
    key, store = os.environ["KEY"], os.environ["STORE"]
    async with (
        ConsulClient.open(os.environ["REGISTRY"], token=os.environ.get("TOKEN", "")) as consul,
        aiohttp.ClientSession() as http,
        anyio.create_task_group() as group,
    ):
        name = f"holder-{os.getpid()}"
        await consul.register_service(ServiceRegistration(name, checks=(TTLCheck(CHECK_TTL),)))
        group.start_soon(renew, consul, f"service:{name}")
        await wait_for_check(consul, name)
        try:
            async with Lock.hold(
                consul, key, lock_delay=timedelta(milliseconds=100), checks=[f"service:{name}"], cancel=False
            ) as lock:
                while True:
                    async with http.put(store, params={"fence": lock.fence, "writer": "holder"}) as answer:
                        if answer.status != 200:
                            break
                    await anyio.sleep(0.01)
        except LockLost:
            sys.stdout.write("refused\n")
            sys.stdout.flush()
        group.cancel_scope.cancel()


async def wait_for_check(consul: ConsulClient, name: str) -> None:
    """Wait until the catalog shows the service's check as passing: a Consul agent tells it a moment later."""
    found, index = await consul.health_service(name, passing=True)
    while not found:
        found, index = await consul.health_service(name, passing=True, index=index)


if __name__ == "__main__":
    anyio.run(main)
