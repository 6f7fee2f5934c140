"""An instance's place in the registry: register, renew at a third of the TTL, start over when the registry forgot.

    absent --register--> listed --renew--> listed
      ▲                    │
      └── the registry does not know us (it restarted, the lease lapsed) ──┘

A registry that is away is asked again with growing, jittered pauses; the app serves all the same.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import structlog

from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.clients.pace import RenewalPace
from toska_common.contracts.discovery import Health, Report
from toska_common.contracts.reports import encode_report, with_steps
from toska_common.errors import Forbidden, MeshError, NotFound, Unauthenticated
from toska_common.mesh.registry import RegistryLink
from toska_common.shares import Share

log = structlog.get_logger(__name__)

REVOKE_WITHIN_S = 1.0
"""How long leaving may take when the registry does not answer; the lease lapses by itself."""


async def _nothing_to_report() -> Report:
    return Report()


class Membership:
    """Keeps one instance listed.

    Args:
        link: The registry.
        build: Makes the registration, anew each time: a restarted mesh may have other defaults.
        ttl: Life of the lease.
        may_lead: Tells whether this process is the one, among those that share the instance, that keeps it listed.
        report: What the instance says of itself with each renewal; its share of traffic follows the score.
    """

    def __init__(
        self,
        link: RegistryLink,
        build: Callable[[], ServiceRegistration],
        ttl: timedelta,
        may_lead: Callable[[], bool],
        report: Callable[[], Awaitable[Report]] = _nothing_to_report,
    ) -> None:
        self._link = link
        self._build = build
        self._pace = RenewalPace(ttl)
        self._may_lead = may_lead
        self._report_of = report
        self._share = Share()
        self._busy = anyio.Lock()
        self._listed_as: ServiceRegistration | None = None
        self._ended = False

    @property
    def listed(self) -> bool:
        """Whether the registry was last seen to list the instance on behalf of this process."""
        return self._listed_as is not None

    async def keep(self) -> None:
        """Stay listed until `end` is called."""
        while not self._ended:
            if self._may_lead():
                async with self._busy:
                    if not self._ended:
                        await self._beat()
            await anyio.sleep(self._pace.pause_s())

    async def end(self, *, revoke: bool) -> None:
        """Stop renewing, and with `revoke` take the instance off the list; bounded by `REVOKE_WITHIN_S`."""
        self._ended = True
        if not revoke:
            return
        with anyio.move_on_after(REVOKE_WITHIN_S, shield=True):
            async with self._busy:  # a registration under way must not arrive after its revocation
                instance_id = self._build().id
                try:
                    await self._link.run(lambda consul: consul.deregister_service(instance_id))
                    log.info("mesh_left", instance=instance_id)
                except MeshError as error:
                    log.info("revocation_failed", instance=instance_id, error=error.detail)
        self._listed_as = None

    async def _beat(self) -> None:
        try:
            listed = self._listed_as
            if listed is not None:
                try:
                    await self._renew(listed.id)
                except NotFound:
                    log.info("registration_lost", instance=listed.id)
                    self._listed_as = listed = None
            if listed is None:
                await self._register()
            self._pace.succeeded()
        except MeshError as error:
            self._pace.failed()
            self._report(error)

    async def _renew(self, instance_id: str) -> None:
        try:
            report = await self._report_of()
        except Exception:
            # The lease is what counts: an app that cannot say how it does is there all the same.
            log.exception("report_failed", instance=instance_id)
            report = Report()
        output = encode_report(report)
        await self._link.run(lambda consul: consul.update_check(f"service:{instance_id}", Health.PASSING, output))
        if self._share.feed(report.score, time.monotonic()):
            log.info("share_of_traffic_changed", instance=instance_id, score=report.score, quarters=self._share.steps)
            await self._link.run(lambda consul: consul.amend_service(instance_id, self._with_share))

    def _with_share(self, meta: Mapping[str, str]) -> Mapping[str, str]:
        return with_steps(meta, self._share.steps)

    async def _register(self) -> None:
        registration = self._build()
        registration = replace(registration, meta=self._with_share(registration.meta))
        await self._link.run(partial(_take_place, registration))
        self._listed_as = registration
        log.info(
            "mesh_joined",
            service_name=registration.name,
            instance=registration.id,
            address=f"{registration.address}:{registration.port}",
            registry=self._link.url,
        )

    def _report(self, error: MeshError) -> None:
        if self._pace.failures > 1:
            return  # said once; the success that follows is said as well
        if isinstance(error, Unauthenticated | Forbidden):
            log.error(
                "registration_refused",
                registry=self._link.url,
                reason=error.detail,
                remedy="set TOSKA_JOIN_TOKEN_FILE to the join.token of the mesh's home",
            )
        else:
            log.warning("registry_unreachable", registry=self._link.url, reason=error.detail)


async def _take_place(registration: ServiceRegistration, consul: ConsulClient) -> None:
    # Who was registered on this address and port before is gone, however it ended: the port is ours now. The mesh's
    # own registry sees to that by itself; a Consul agent would go on listing the predecessor until its lease lapses.
    for instance in (await consul.agent_services()).values():
        same_place = (instance.address, instance.port) == (registration.address, registration.port)
        if same_place and instance.id != registration.id:
            await consul.deregister_service(instance.id)
            log.info("predecessor_evicted", instance=instance.id)
    await consul.register_service(registration)
