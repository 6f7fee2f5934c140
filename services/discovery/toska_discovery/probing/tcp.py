"""TCP checks: somebody accepts a connection."""

import asyncio

from toska_common.contracts.discovery import Health

from toska_discovery.check import Probe
from toska_discovery.probing.dialling import BadTarget, Dialler, split_address
from toska_discovery.probing.verdict import Verdict


class TcpRunner:
    """Connects, and hangs up at once."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    async def run(self, probe: Probe, _output_max_bytes: int) -> Verdict:
        try:
            host, port = split_address(probe.target)
            async with asyncio.timeout(probe.timeout_s):
                (await self._dialler.connect(host, port)).close()
        except TimeoutError:
            return Verdict(Health.CRITICAL, f"dial tcp {probe.target}: i/o timeout")
        except (OSError, BadTarget) as error:
            return Verdict(Health.CRITICAL, str(error))
        return Verdict(Health.PASSING, f"TCP connect {probe.target}: Success")
