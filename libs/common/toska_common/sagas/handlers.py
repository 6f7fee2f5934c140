"""The management API of a service's sagas: `app.include_router(saga_routes(sagas))`.

Inputs and results may be about people, and a service's listener is open to whoever reaches it, so every request needs
a token, reads included: as `Authorization: Bearer`, which a gateway never passes on to a service. It is the `admin`
token, or the one that follows from it for this service, which the gateway's admin API shows when it asks for operators.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi import Path as InPath

from toska_common.contracts.discovery import SAGAS_ROUTE
from toska_common.contracts.sagas import CancelSaga, SagaDetail, SagaList, SagaState
from toska_common.credentials import Access, Credentials, bearer_token, read_token, sagas_token
from toska_common.errors import ConfigurationError, Unauthenticated
from toska_common.meshfile import find_mesh
from toska_common.sagas.settings import SagaSettings

if TYPE_CHECKING:
    from toska_common.sagas.service import Sagas

SagaId = Annotated[str, InPath(description="As it was started with", max_length=128)]


def saga_routes(sagas: "Sagas", *, prefix: str = "/api/v1/sagas") -> APIRouter:
    """List, look up, cancel and resume sagas.

    The credential is `TOSKA_SAGAS_TOKEN` or the file `TOSKA_SAGAS_TOKEN_FILE`, else `admin.token` of the home, and what
    `sagas_token` makes of it for this service; without any, everything is refused.
    """
    router = APIRouter(prefix=prefix, tags=["sagas"], dependencies=[Depends(_guard(sagas.service, sagas.settings))])

    @router.get("", name=SAGAS_ROUTE, summary="List sagas")
    async def list_sagas(
        state: Annotated[SagaState | None, Query(description="Only those in this state")] = None,
        name: Annotated[str | None, Query(max_length=64, description="Only those of this name")] = None,
        before: Annotated[str | None, Query(max_length=300, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> SagaList:
        """Newest first."""
        return await sagas.list(state=state, name=name, before=before, limit=limit)

    @router.get("/{saga_id}", summary="Look a saga up")
    async def get_saga(saga_id: SagaId) -> SagaDetail:
        """With all attempts of its steps and their outcomes."""
        return await sagas.get(saga_id)

    @router.post("/{saga_id}/cancel", status_code=202, summary="Cancel a saga")
    async def cancel_saga(saga_id: SagaId, wish: CancelSaga | None = None) -> SagaDetail:
        """Have it turn back: what it did is undone, the last first."""
        await sagas.cancel(saga_id, (wish or CancelSaga()).reason)
        return await sagas.get(saga_id)

    @router.post("/{saga_id}/resume", status_code=202, summary="Resume a saga that is stuck")
    async def resume_saga(saga_id: SagaId) -> SagaDetail:
        """Let it go on where it is, with as many attempts as it had at first."""
        await sagas.resume(saga_id)
        return await sagas.get(saga_id)

    return router


def _guard(service: str, settings: SagaSettings) -> Callable[..., None]:
    def check(authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> None:
        given = bearer_token(authorization)
        # Read at each request: a mesh may be started after its services, and make its tokens then.
        token = _token(settings)
        if given and token and Credentials(admin=sagas_token(token, service), join="").access_of(given):
            return
        if given and not token:
            raise Unauthenticated(
                "this service found no admin token to compare with: tell it where by TOSKA_SAGAS_TOKEN_FILE",
                needs="admin",
            )
        Credentials(admin=token, join="").require(given, Access.ADMIN)

    return check


def _token(settings: SagaSettings) -> str:
    given = settings.token.get_secret_value()
    if given:
        return given
    for path in _token_files(settings):
        try:
            return read_token(path)
        except ConfigurationError:
            continue
    return ""  # matches nothing


def _token_files(settings: SagaSettings) -> Iterator[Path]:
    if settings.token_file is not None:
        yield settings.token_file
        return
    yield settings.home / "admin.token"
    # The home is wherever the service was started, and the mesh that it joins may have its own elsewhere.
    mesh = find_mesh()
    if mesh is not None:
        yield mesh.home / "admin.token"
