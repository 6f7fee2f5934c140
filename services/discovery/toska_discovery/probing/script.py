"""Script checks: a program's exit code is the verdict, 0 passing, 1 warning, anything else critical.

Whoever may register services can run programs by them, so they are off unless the operator says otherwise.
"""

import os
import subprocess
from datetime import timedelta

import anyio
from toska_common.child_process import ChildProcess, start_child
from toska_common.contracts.discovery import Health
from toska_common.units import format_duration

from toska_discovery.check import Probe
from toska_discovery.probing.verdict import Tail, Verdict

DISABLED = "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true"
"""Consul's words; ours for the setting is `TOSKA_DISCOVERY_ENABLE_SCRIPT_CHECKS`."""

_STATUSES = {0: Health.PASSING, 1: Health.WARNING}


class ScriptRunner:
    """Runs a check's command line, with discovery's environment except for the settings and secrets of the mesh."""

    async def run(self, probe: Probe, output_max_bytes: int) -> Verdict:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOSKA_")}
        try:
            process = start_child(
                probe.args,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                environment=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = str(error) if not isinstance(error, OSError) else (error.strerror or str(error)).lower()
            return Verdict(Health.CRITICAL, f"fork/exec {probe.args[0]}: {reason}")
        tail = Tail(output_max_bytes)
        with anyio.move_on_after(probe.timeout_s):
            code = await _wait(process, tail)
            return Verdict(_STATUSES.get(code, Health.CRITICAL), _output(tail, output_max_bytes))
        took = format_duration(timedelta(seconds=probe.timeout_s))
        return Verdict(Health.CRITICAL, f"Timed out ({took}) running check")


class NoScripts:
    """For where scripts are off: one that was registered while they were on must not go on passing unasked."""

    async def run(self, _probe: Probe, _output_max_bytes: int) -> Verdict:
        return Verdict(Health.CRITICAL, DISABLED)


async def _wait(process: ChildProcess, tail: Tail) -> int:
    try:
        async for chunk in process.output():
            tail.add(chunk)
        return await process.wait()
    except BaseException:
        # The whole session: what the script has started must not outlive its timeout.
        await process.kill_session()
        raise


def _output(tail: Tail, output_max_bytes: int) -> str:
    if tail.total <= output_max_bytes:
        return tail.text
    return f"Captured {output_max_bytes} of {tail.total} bytes\n...\n{tail.text}"
