"""`toska sagas`: asks services for their sagas, by way of the gateway or directly, and shows them to people."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import TypeAdapter
from toska_common.contracts.sagas import SagaDetail, SagaList, SagaService, SagaState, SagaSummary
from toska_common.credentials import read_token, sagas_token
from toska_common.errors import ConfigurationError, MeshError

from toska_cli.admin_api import AdminApi
from toska_cli.events import table
from toska_cli.running import get_home
from toska_cli.saga_timeline import draw
from toska_cli.terminal import plain

_THROUGH_GATEWAY = "/api/v1/gateway/sagas"
_DIRECT = "/api/v1/sagas"
_PAGE = 500
_PATIENCE_S = 110.0
"""The gateway asks up to three instances, and gives each 35 s."""
_ASKED_EVERY_S = 0.5
_TOKEN_VARIABLE = "TOSKA_SAGAS_TOKEN"  # noqa: S105 - its name

_SERVICES: TypeAdapter[list[SagaService]] = TypeAdapter(list[SagaService])


@dataclass(frozen=True, slots=True)
class SagaApi:
    """The sagas of one service: whom to ask, and below which path."""

    service: str
    api: AdminApi
    path: str

    def page(self, query: dict[str, str]) -> Any:
        """Some of them."""
        return self.api.get(f"{self.path}?{urlencode(query)}", patience_s=_PATIENCE_S)

    def get(self, saga_id: str) -> Any:
        """One with its history."""
        return self.api.get(f"{self.path}/{quote(saga_id, safe='')}", patience_s=_PATIENCE_S)

    def steer(self, saga_id: str, action: str, body: object = None) -> Any:
        """One, after it was told what to do."""
        return self.api.post(f"{self.path}/{quote(saga_id, safe='')}/{action}", body, patience_s=_PATIENCE_S)


def find_gateway(admin: str | None, home: Path | None) -> AdminApi:
    """The gateway that is asked for services' sagas.

    Raises:
        ConfigurationError: No mesh runs there, or there is no token for it.
    """
    return AdminApi.find(admin, home)


def find_saga_api(service: str, admin: str | None, direct: str | None, home: Path | None) -> SagaApi:
    """Where the sagas of a service are asked for.

    Raises:
        ConfigurationError: No mesh runs there, or there is no token for it.
    """
    if direct is None:
        return SagaApi(service, find_gateway(admin, home), f"{_THROUGH_GATEWAY}/{quote(service, safe='')}")
    if admin is not None:
        raise ConfigurationError("say whom to ask: one of --admin and --direct")
    return SagaApi(service, AdminApi(direct, _direct_token(service, home), f"{service}'s API of sagas"), _DIRECT)


def find_sagas(service: str | None, admin: str | None, direct: str | None, home: Path | None) -> list[SagaApi]:
    """The same for one service, or for all that the gateway knows of; raises as `find_saga_api`."""
    if service is not None:
        return [find_saga_api(service, admin, direct, home)]
    if direct is not None:
        raise ConfigurationError("name the service that --direct asks")
    gateway = find_gateway(admin, home)
    found = _SERVICES.validate_python(gateway.get(_THROUGH_GATEWAY, patience_s=_PATIENCE_S))
    return [SagaApi(one.service, gateway, f"{_THROUGH_GATEWAY}/{one.service}") for one in found]


def show_services(gateway: AdminApi, *, as_json: bool) -> None:
    """Print the services that have sagas."""
    found = gateway.get(_THROUGH_GATEWAY, patience_s=_PATIENCE_S)
    rows = [("SERVICE", "INSTANCES")]
    rows += [(one.service, str(one.instances)) for one in _SERVICES.validate_python(found)]
    _write(found, table(rows) if rows[1:] else ["no service has an API of sagas"], as_json=as_json)


def show_sagas(apis: Sequence[SagaApi], *, state: str | None, name: str | None, limit: int, as_json: bool) -> bool:
    """Print sagas, each with what somebody has to know of it; whether every service told of its own.

    Raises:
        MeshError: The only one did not.
    """
    given = {"state": state, "name": name}
    query = {key: value for key, value in given.items() if value is not None}
    found: list[dict[str, Any]] = []
    silent = 0
    for api in apis:
        try:
            found += [{"service": api.service, **item} for item in _pages(api, query, limit)]
        except MeshError as error:
            if len(apis) == 1:
                raise
            # One that is away must not hide what the others have to tell.
            sys.stderr.write(plain(f"toska: {api.service}: {error.detail}") + "\n")
            silent += 1
    rows: list[tuple[str, ...]] = [("SERVICE", "ID", "NAME", "STATE", "STARTED", "TOOK", "WHY")]
    for item in found:
        saga = SagaSummary.model_validate(item)
        started = f"{saga.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
        rows.append((item["service"], saga.id, saga.name, saga.state, started, _took(saga), _why(saga)))
    _write(found, table(rows) if rows[1:] else ["no sagas"], as_json=as_json)
    return not silent


def show_saga(api: SagaApi, saga_id: str, *, as_json: bool) -> bool:
    """Print one with its history; whether it is not stuck."""
    return _show(api, api.get(saga_id), as_json=as_json)


def cancel_saga(api: SagaApi, saga_id: str, reason: str, *, wait: bool, as_json: bool) -> bool:
    """Have one turn back, and print it; whether it is not stuck."""
    told = api.steer(saga_id, "cancel", {"reason": reason})
    return _show(api, _settled(api, saga_id) if wait else told, as_json=as_json)


def resume_saga(api: SagaApi, saga_id: str, *, wait: bool, as_json: bool) -> bool:
    """Have one go on, and print it; whether it is not stuck."""
    told = api.steer(saga_id, "resume")
    return _show(api, _settled(api, saga_id) if wait else told, as_json=as_json)


def print_token(service: str, home: Path | None) -> None:
    """Print the token for one service's sagas.

    Raises:
        ConfigurationError: There is no admin token that it would follow from.
    """
    sys.stdout.write(sagas_token(read_token(get_home(home) / "admin.token"), service) + "\n")


def _pages(api: SagaApi, query: dict[str, str], limit: int) -> Iterator[Any]:
    left, before = limit, {}
    while left > 0:
        page = api.page({**query, **before, "limit": str(min(left, _PAGE))})
        listed = SagaList.model_validate(page)
        yield from page["sagas"]
        if listed.next is None:
            return
        left -= len(listed.sagas)
        before = {"before": listed.next}


def _settled(api: SagaApi, saga_id: str) -> Any:
    while True:
        told = api.get(saga_id)
        state = SagaDetail.model_validate(told).state
        if state.is_final or state is SagaState.STUCK:
            return told
        time.sleep(_ASKED_EVERY_S)


def _show(api: SagaApi, told: Any, *, as_json: bool) -> bool:
    saga = SagaDetail.model_validate(told)
    lines = [plain(line) for line in draw(saga, datetime.now().astimezone())]
    is_stuck = saga.state is SagaState.STUCK
    if is_stuck:
        lines.append(f"when what it waits for is mended: toska sagas resume {api.service} {saga.id}")
    _write(told, lines, as_json=as_json)
    return not is_stuck


def _direct_token(service: str, home: Path | None) -> str:
    if given := os.environ.get(_TOKEN_VARIABLE, "").strip():
        return given
    return sagas_token(read_token(get_home(home) / "admin.token"), service)


def _took(saga: SagaSummary) -> str:
    if saga.finished_at is None:
        return "-"
    return f"{(saga.finished_at - saga.created_at).total_seconds():.1f} s"


def _why(saga: SagaSummary) -> str:
    if saga.state is SagaState.STUCK:
        return saga.stuck
    if saga.failure is None:
        return "to be cancelled" if saga.cancel_requested and not saga.state.is_final else ""
    where = f"{saga.failure.step} " if saga.failure.step else ""
    return f"{where}{saga.failure.outcome}: {saga.failure.detail}"


def _write(found: Any, lines: Sequence[str], *, as_json: bool) -> None:
    sys.stdout.write(json.dumps(found) + "\n" if as_json else "\n".join(lines) + "\n")
