"""Trying the filters of a snapshot before any worker has it: operators' code, so in a process of its own.

A module that cannot be imported, hangs or ends its process at that, and settings that its model refuses, are found
here, while all workers serve on. The parent itself never imports any of it.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
from toska_common.child_process import ChildProcess, start_child
from toska_common.contracts.routing import FilterUse, Route, RouteTable
from toska_common.routing.picking import PickedRoutes

TRIAL_S = 10.0

_TRIAL = [sys.executable, "-m", "toska_gateway.worker.filters"]


class FilterTrial:
    """Tries filters, each kind with the same settings once.

    Args:
        folder: Where modules are looked for that are not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._passed: set[str] = set()
        self._filtered = PickedRoutes(lambda route: bool(route.policies.filters))
        self._tried: Mapping[str, Route] | None = None

    def forget(self) -> None:
        """The code may have changed: what passed is tried again."""
        self._passed.clear()
        self._tried = None

    async def problems(self, table: RouteTable) -> list[dict[str, str]]:
        """What is wrong with the filters of a table, each with its field and the reason."""
        filtered = self._filtered.of(table)
        if filtered is self._tried:
            return []
        found = {_identity(item): (at, item) for at, item in _filters(table)} if filtered else {}
        new = {identity: one for identity, one in found.items() if identity not in self._passed}
        problems = await self._try(list(new.values())) if new else []
        wrong = {problem["field"] for problem in problems}
        self._passed = {identity for identity, (at, _) in found.items() if at not in wrong}
        self._tried = None if problems else filtered
        return problems

    async def _try(self, filters: list[tuple[str, FilterUse]]) -> list[dict[str, str]]:
        asked = {
            "folder": str(self._folder),
            "filters": [{"at": at, "use": item.use, "settings": dict(item.settings)} for at, item in filters],
        }
        output: bytes | None = None
        with tempfile.TemporaryFile() as question:
            question.write(json.dumps(asked).encode())
            question.seek(0)
            process = start_child(_TRIAL, stdin=question, stdout=subprocess.PIPE, start_new_session=True)
        with anyio.move_on_after(TRIAL_S):
            output = await _answer(process)
        if output is None:
            return _all(filters, f"importing the filters takes longer than {TRIAL_S:.0f} s")
        if process.returncode != 0:
            return _all(filters, f"importing the filters ends the process (exit code {process.returncode})")
        problems: list[dict[str, str]] = json.loads(output)
        return problems


async def _answer(process: ChildProcess) -> bytes:
    try:
        output = b"".join([chunk async for chunk in process.output()])
        await process.wait()
    except BaseException:
        await process.kill_session()
        raise
    return output


def _filters(table: RouteTable) -> Iterator[tuple[str, FilterUse]]:
    for index, route in enumerate(table.routes):
        for number, item in enumerate(route.policies.filters):
            yield f"routes[{index}].policies.filters[{number}]", item


def _identity(item: FilterUse) -> str:
    settings: dict[str, Any] = dict(item.settings)
    return json.dumps([item.use, settings], sort_keys=True)


def _all(filters: list[tuple[str, FilterUse]], reason: str) -> list[dict[str, str]]:
    return [{"field": at, "reason": f"{item.use}: {reason}"} for at, item in filters]
