"""`toska gateways`: which gateway runs which version of the routing, and what one has refused."""

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter
from toska_common.contracts.router import GatewayStatus, RouterStatus

from toska_cli.admin_api import AdminApi
from toska_cli.running import get_running_mesh
from toska_cli.terminal import plain

_GATEWAYS: TypeAdapter[list[GatewayStatus]] = TypeAdapter(list[GatewayStatus])


def show_gateways(home: Path | None, *, as_json: bool) -> bool:
    """Print the gateways that ask the mesh's router; whether all run the newest version.

    Raises:
        ConfigurationError: No mesh runs there.
        MeshError: Its router refuses, or does not answer.
    """
    mesh = get_running_mesh(home)
    router = AdminApi.find(mesh.urls["router"], mesh.home, what="the router's API")
    status = RouterStatus.model_validate(router.get("/api/v1/status"))
    found = router.get("/api/v1/gateways")
    gateways = _GATEWAYS.validate_python(found)
    if as_json:
        sys.stdout.write(json.dumps({"version": status.version, "gateways": found}) + "\n")
    else:
        sys.stdout.write(f"newest version {status.version or '(none yet)'}\n")
        for gateway in gateways:
            sys.stdout.write(plain(f"  {gateway.name:<28} {gateway.version or '-':<16}  {describe(gateway)}") + "\n")
    return all(gateway.up_to_date for gateway in gateways)


def describe(gateway: GatewayStatus) -> str:
    """How a gateway is, in words."""
    if gateway.rejected:
        return f"refused {gateway.rejected_version}: {gateway.rejected}"
    if not gateway.up_to_date:
        return f"behind; asked last at {gateway.last_seen:%H:%M:%S}"
    if gateway.applied_after_seconds is None:
        return "current"
    return f"current, {gateway.applied_after_seconds * 1000:.0f} ms after it was published"
