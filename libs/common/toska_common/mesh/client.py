"""`mesh.client("payments")`: an httpx client whose host is a service of the mesh."""

from typing import Any

import httpx

from toska_common.mesh.outbound import Outbound
from toska_common.mesh.transport import CallPolicy, MeshTransport


class MeshClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` for one service; paths are relative to it: `await payments.get("/fees")`.

    It may be made once and kept, or made for each call: connections belong to the process and not to the client.
    """

    def __init__(self, service: str, outbound: Outbound, policy: CallPolicy, **options: Any) -> None:
        options.setdefault("transport", MeshTransport(service, outbound, policy))
        # Proxies of the environment are for the way out, not for calls between instances.
        super().__init__(base_url=f"http://{service}", trust_env=False, **options)
        self.service = service
