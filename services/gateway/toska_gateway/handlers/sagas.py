"""The sagas of services, for operators who reach the gateway and not each service."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from toska_common.contracts.names import ServiceName
from toska_common.contracts.sagas import CancelSaga, SagaDetail, SagaList, SagaService, SagaState
from toska_common.errors import NotFound
from toska_common.security import require_admin

from toska_gateway.parts import PartsSlot
from toska_gateway.sagas import ServiceSagas

SagaId = Annotated[str, Path(description="As it was started with", pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]


def saga_routes(slot: PartsSlot) -> APIRouter:
    """The handlers. What sagas hold may be about people: reading takes the admin token, too."""
    router = APIRouter(prefix="/api/v1/gateway/sagas", tags=["gateway"], dependencies=[Depends(_admins_only)])

    @router.get("")
    async def list_services() -> list[SagaService]:
        """The services that run sagas and let them be looked at, by name."""
        return await _sagas(slot).services()

    @router.get("/{service}")
    async def list_sagas(
        service: ServiceName,
        state: Annotated[SagaState | None, Query(description="Only those in this state")] = None,
        name: Annotated[str | None, Query(max_length=64, description="Only those of this name")] = None,
        before: Annotated[str | None, Query(max_length=300, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> SagaList:
        """A service's sagas, newest first."""
        return await _sagas(slot).list(service, state=state, name=name, before=before, limit=limit)

    @router.get("/{service}/{saga_id}")
    async def get_saga(service: ServiceName, saga_id: SagaId) -> SagaDetail:
        """One saga, with all attempts of its steps and their outcomes."""
        return await _sagas(slot).get(service, saga_id)

    @router.post("/{service}/{saga_id}/cancel", status_code=202)
    async def cancel_saga(service: ServiceName, saga_id: SagaId, wish: CancelSaga | None = None) -> SagaDetail:
        """Have it turn back: what it did is undone, the last first."""
        return await _sagas(slot).cancel(service, saga_id, (wish or CancelSaga()).reason)

    @router.post("/{service}/{saga_id}/resume", status_code=202)
    async def resume_saga(service: ServiceName, saga_id: SagaId) -> SagaDetail:
        """Let it go on where it is stuck, with as many attempts as it had at first."""
        return await _sagas(slot).resume(service, saga_id)

    return router


def _admins_only(request: Request) -> None:
    require_admin(request.state.access)


def _sagas(slot: PartsSlot) -> ServiceSagas:
    mesh = slot.get().mesh
    if mesh is None:
        raise NotFound("this gateway belongs to no mesh")
    return mesh.sagas
