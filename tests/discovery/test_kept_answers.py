"""Answers that are kept encoded: bounded, and never the cause of a wrong one."""

from pathlib import Path

import pytest
from toska_discovery.consul import answers
from toska_tests.clients import http_client
from toska_tests.discovery_rig import discovery_in


@pytest.mark.parametrize("room", [0, 1500, answers.MAX_BYTES])
async def test_lookups_are_right_whatever_room_there_is_for_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(answers, "MAX_BYTES", room)
    names = [f"kept-{number}" for number in range(6)]
    async with (
        discovery_in(tmp_path) as discovery,
        http_client(base_url=discovery.consul, headers=discovery.bearer()) as client,
    ):
        for revision in ("1", "2"):
            for name in names:
                body = {"Name": name, "Port": 9000, "Address": f"{name}.example", "Meta": {"revision": revision}}
                assert (await client.put("/v1/agent/service/register", json=body)).status_code == 200
            for name in [*names, *names]:
                (entry,) = (await client.get(f"/v1/health/service/{name}?passing")).json()
                assert (entry["Service"]["Service"], entry["Service"]["Meta"]) == (name, {"revision": revision})
