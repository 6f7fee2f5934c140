"""A service of the mesh in the registry: listed while it runs, renewed, and put back if the registry forgot it.

    announced ──register──▶ listed ──renew every ttl/3──▶ listed
                               ▲            │ 404: forgotten, or lapsed
                               └────────────┘

The registry may be away at the start or later: that is logged once, and tried again after growing pauses. Every pause
is jittered, so that services which start together do not renew together.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address

import anyio
import structlog

from toska_common import __version__
from toska_common.clients.consul import ConsulClient
from toska_common.clients.consul_records import ServiceRegistration, TTLCheck
from toska_common.clients.pace import RenewalPace
from toska_common.contracts.discovery import META_VERSION
from toska_common.errors import MeshError, NotFound
from toska_common.health import HealthChecks

log = structlog.get_logger(__name__)

TTL = timedelta(seconds=15)
REMOVED_AFTER = timedelta(minutes=1)
"""How long an instance that stopped renewing stays listed as critical; Consul takes no less."""


def own_registration(name: str, host: str, port: int, *, advertised: str = "") -> ServiceRegistration:
    """How one of the mesh's own services is registered.

    Args:
        name: Such as `toska-router`.
        host: The address that it binds.
        port: Of the listener that others look for.
        advertised: Instead of `host`.
    """
    # Without an address the registry takes that of its node, where a service answers too that is on all of them.
    address = advertised or ("" if _is_unspecified(host) else host)
    return ServiceRegistration(
        name=name, id=f"{name}-{port}", address=address, port=port, tags=("toska",), meta={META_VERSION: __version__}
    )


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


class Presence:
    """One instance's place in the registry; `keep` runs in the background from `announce` to `withdraw`."""

    def __init__(self, consul: ConsulClient, registration: ServiceRegistration, *, ttl: timedelta = TTL) -> None:
        instance_id = registration.id or registration.name
        self._consul = consul
        self._check_id = f"service:{instance_id}"
        check = TTLCheck(ttl=ttl, check_id=self._check_id, name="renewed by itself", deregister_after=REMOVED_AFTER)
        self._registration = replace(registration, id=instance_id, checks=(check,))
        self._announced = anyio.Event()
        self._talking = anyio.Lock()
        self._withdrawn = False
        self._tried = False
        self._listed = False
        self._pace = RenewalPace(ttl)

    @property
    def listed(self) -> bool:
        """Whether the registry had it at the last renewal."""
        return self._listed and not self._pace.failures

    async def announce(self) -> None:
        """Let `keep` register from now on; called once everything accepts."""
        self._announced.set()

    async def keep(self) -> None:
        """Register once announced, and renew for ever."""
        await self._announced.wait()
        while not self._withdrawn:
            await self._renew()
            await anyio.sleep(self._pace.pause_s())

    async def withdraw(self) -> None:
        """Take the registration back.

        Raises:
            MeshError: The registry cannot be reached; there the lease lapses.
        """
        self._withdrawn = True
        async with self._talking:  # a registration on its way must not arrive after this
            # Also if its answer never came, the registry may have taken the registration.
            if self._listed or self._tried:
                self._listed = self._tried = False
                await self._consul.deregister_service(self._registration.id)

    async def _renew(self) -> None:
        try:
            async with self._talking:
                await self._renew_or_register()
        except MeshError as error:
            self._pace.failed()
            if self._pace.failures == 1:
                log.warning("registration_failed", instance=self._registration.id, error=error.detail)
            return
        if self._pace.failures:
            log.info("registration_restored", instance=self._registration.id)
        self._pace.succeeded()

    async def _renew_or_register(self) -> None:
        if self._listed:
            try:
                await self._consul.pass_check(self._check_id)
            except NotFound:
                self._listed = False
        if not self._listed and not self._withdrawn:
            self._tried = True
            await self._consul.register_service(self._registration)
            self._listed = True


def withdrawing(
    health: HealthChecks, presence: Presence, *, first: Callable[[], object] | None = None
) -> Callable[[], Awaitable[None]]:
    """What a service does when it is about to stop: readiness fails, `first` is called, and it leaves the registry."""

    async def withdraw() -> None:
        health.draining = True
        if first is not None:
            first()
        await presence.withdraw()

    return withdraw
