"""The sagas of users' services, for operators: asked of an instance, whose processes share them.

The gateway passes no credential of the mesh on to services, so it asks by itself, with a token that opens nothing but
this service's sagas (`toska_common.credentials.sagas_token`). What an instance answers is taken for what the contracts
say, and for nothing else: it may be anybody's.
"""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlencode

import anyio
from pydantic import ValidationError
from toska_common.clients.consul import ConsulClient, ServiceEntry
from toska_common.contracts import Contract
from toska_common.contracts.discovery import META_SAGAS, Health
from toska_common.contracts.sagas import SagaDetail, SagaList, SagaService
from toska_common.credentials import sagas_token
from toska_common.errors import Conflict, InvalidInput, NotFound, UpstreamError

from toska_gateway.instance_calls import Answer, InstanceCaller, NotReached, Question, Refusal

TIMEOUT: Final = timedelta(seconds=35)
"""A service that had nothing to do with sagas until now loads what it needs, and opens its database: 30 s at most."""
_TRIES: Final = 3
_AT_ONCE: Final = 8
_REASON_CHARS: Final = 500
_WORST_LAST: Final = (Health.PASSING, Health.WARNING, Health.CRITICAL)
_SAID: Final = {404: NotFound, 409: Conflict}

Shape = TypeVar("Shape", bound=Contract)


class ServiceSagas:
    """Asks services of one mesh.

    Args:
        consul: The registry.
        caller: Asks instances.
        refusal: Of addresses that the mesh does not go to.
        admin: The admin token, from which those that are shown follow.
    """

    def __init__(self, consul: ConsulClient, caller: InstanceCaller, refusal: Refusal, admin: str) -> None:
        self._consul = consul
        self._caller = caller
        self._refusal = refusal
        self._admin = admin

    async def services(self) -> list[SagaService]:
        """Those of which an instance says that it has sagas, by name."""
        names, _ = await self._consul.catalog_services()
        found: list[SagaService] = []
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def look(name: str) -> None:
            async with limiter:
                instances, _ = await self._consul.catalog_service(name)
            if count := sum(1 for one in instances if one.service.meta.get(META_SAGAS)):
                found.append(SagaService(service=name, instances=count))

        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(look, name)
        return sorted(found, key=lambda one: one.service)

    async def list(
        self, service: str, *, state: str | None, name: str | None, before: str | None, limit: int
    ) -> SagaList:
        """A page of a service's sagas, newest first; raises as `get`."""
        given = {"state": state, "name": name, "before": before, "limit": str(limit)}
        query = urlencode({key: value for key, value in given.items() if value is not None})
        return _read(SagaList, service, await self._ask(service, "GET", f"?{query}"))

    async def get(self, service: str, saga_id: str) -> SagaDetail:
        """One saga with its history.

        Raises:
            NotFound: There is no such service, it has no API of sagas, or no such saga.
            UpstreamError: None of its instances answers as one should.
        """
        return _read(SagaDetail, service, await self._ask(service, "GET", f"/{saga_id}"))

    async def cancel(self, service: str, saga_id: str, reason: str) -> SagaDetail:
        """Have a saga turn back; raises as `get`, and `Conflict` if it cannot."""
        told = await self._ask(service, "POST", f"/{saga_id}/cancel", {"reason": reason})
        return _read(SagaDetail, service, told)

    async def resume(self, service: str, saga_id: str) -> SagaDetail:
        """Have a saga go on that is stuck; raises as `get`, and `Conflict` if it is not."""
        return _read(SagaDetail, service, await self._ask(service, "POST", f"/{saga_id}/resume"))

    async def _ask(self, service: str, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        failure = UpstreamError("nobody was asked")
        for entry in (await self._instances(service))[:_TRIES]:
            question = Question(
                method, entry.service.meta[META_SAGAS] + path, content, sagas_token(self._admin, service)
            )
            try:
                answer = await self._caller.ask(entry.address, entry.service.port, question, self._refusal)
                return _taken(service, answer)
            except UpstreamError as error:
                failure = UpstreamError(f"{service} at {entry.address}:{entry.service.port}: {error.detail}")
                if method != "GET" and not isinstance(error, NotReached):
                    raise failure from error  # it may have done it
        raise failure

    async def _instances(self, service: str) -> Sequence[ServiceEntry]:
        """Those that have the API, the healthiest and newest first."""
        entries, _ = await self._consul.health_service(service)
        if not entries:
            raise NotFound(f"no service {service} is registered", service=service)
        able = [entry for entry in entries if entry.service.meta.get(META_SAGAS)]
        if not able:
            raise NotFound(
                f"{service} has no API of sagas: app.include_router(saga_routes(sagas)) adds it", service=service
            )
        return sorted(able, key=lambda entry: (_WORST_LAST.index(entry.health), -entry.service.create_index))


def _taken(service: str, answer: Answer) -> Any:
    """What an instance said.

    Raises:
        MeshError: It said no.
    """
    try:
        told = json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        raise UpstreamError(f"it answered with status {answer.status}, and no JSON") from error
    if answer.status in (200, 202):
        return told
    problem = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    detail = str(problem.get("detail") or f"it answered with status {answer.status}")[:_REASON_CHARS]
    if answer.status in (401, 403):
        raise UpstreamError(
            f"it does not take this mesh's token for it: give the service TOSKA_SAGAS_TOKEN as "
            f"`toska sagas token {service}` prints it, or the mesh's own state folder"
        )
    if answer.status == InvalidInput.status:
        raise InvalidInput(detail)
    raise _SAID.get(answer.status, UpstreamError)(detail)


def _read(shape: type[Shape], service: str, told: Any) -> Shape:
    try:
        return shape.model_validate(told)
    except ValidationError as error:
        raise UpstreamError(f"{service} answers, but not as the API of sagas does") from error
