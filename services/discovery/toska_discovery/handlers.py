"""The REST API: parse, call one method of the backend, return a contract."""

import re
from ipaddress import ip_address
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from toska_common.contracts.discovery import Health, Heartbeat, Instance, Registration, ServiceSummary
from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.credentials import Access
from toska_common.errors import Forbidden, InvalidInput
from toska_common.targets import TargetRules

from toska_discovery.backend import Backend

PREFIX = "/api/v1/services"

_CHANGES_BY_JOIN = re.compile(rf"POST {PREFIX}(/[^/]+/heartbeat)?|DELETE {PREFIX}/[^/]+")


def join_suffices(method: str, path: str) -> bool:
    """Whether a change needs no more than the join token: an app may register, renew and deregister."""
    return _CHANGES_BY_JOIN.fullmatch(f"{method} {path}") is not None


def _backend(request: Request) -> Backend:
    return cast("Backend", request.app.state.backend)


AnyBackend = Annotated[Backend, Depends(_backend)]

router = APIRouter(prefix=PREFIX, tags=["services"])


@router.post("", status_code=201)
async def register(registration: Registration, request: Request, response: Response, backend: AnyBackend) -> Instance:
    """List an instance, in place of whoever has its id, or its address and port; needs the join token.

    It stays listed for as long as it is renewed by `POST …/{id}/heartbeat` once every `ttl_seconds`.
    """
    is_ours = registration.service.startswith(RESERVED_PREFIX)
    targets = TargetRules() if is_ours else cast("TargetRules", request.app.state.targets)
    _check_target(registration, targets)
    _require_admin_for(request, await backend.services_touched_by(registration))
    instance = await backend.register(registration)
    response.headers["location"] = f"{PREFIX}/{instance.id}"
    return instance


@router.get("")
async def list_services(backend: AnyBackend) -> list[ServiceSummary]:
    """All services, with how many of their instances are in which state."""
    return await backend.list_services()


@router.get("/discover")
async def discover(
    backend: AnyBackend,
    name: Annotated[str, Query(min_length=1, max_length=255, description="The service")],
    all_: Annotated[bool, Query(alias="all", description="Also those that are critical")] = False,
) -> list[Instance]:
    """The instances of one service that can be called; none if there is no such service."""
    instances = await backend.list_instances(name)
    return [instance for instance in instances if all_ or instance.health is not Health.CRITICAL]


@router.get("/{instance_id}")
async def get_instance(instance_id: str, backend: AnyBackend) -> Instance:
    """One instance."""
    return await backend.get_instance(instance_id)


@router.delete("/{instance_id}", status_code=204)
async def deregister(instance_id: str, request: Request, backend: AnyBackend) -> None:
    """Take an instance off the list; needs the join token."""
    _require_admin_for(request, {(await backend.get_instance(instance_id)).service})
    await backend.deregister(instance_id)


@router.post("/{instance_id}/heartbeat")
async def heartbeat(instance_id: str, request: Request, backend: AnyBackend) -> Heartbeat:
    """Renew an instance's lease, and take it for passing; needs the join token. 404 means: register again."""
    _require_admin_for(request, {(await backend.get_instance(instance_id)).service})
    return await backend.renew(instance_id)


def _require_admin_for(request: Request, names: set[str]) -> None:
    if request.state.access is Access.ADMIN:
        return
    ours = sorted(name for name in names if name.startswith(RESERVED_PREFIX))
    if ours:
        raise Forbidden(f"{', '.join(ours)} belongs to the mesh itself: the admin token is needed", needs="admin")


def _check_target(registration: Registration, targets: TargetRules) -> None:
    """Refuse what must never be connected to; a name is checked by whoever connects, once it is resolved."""
    address = "127.0.0.1" if registration.address == "localhost" else registration.address
    try:
        ip = ip_address(address)
    except ValueError:
        return
    reason = "0.0.0.0 and :: are no addresses to connect to" if ip.is_unspecified else None
    reason = reason or targets.refusal(str(ip), registration.port)
    if reason is not None:
        raise InvalidInput(f"body.address: {reason}", problems=[{"field": "body.address", "reason": reason}])
