"""How every gRPC call goes: admitted by its token, within its deadline, its errors told as statuses with details."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import grpc
import structlog
from prometheus_client import CollectorRegistry, Counter

from toska_common.credentials import Access, bearer_token
from toska_common.errors import MeshError, UpstreamTimeout
from toska_common.rpc.status import DETAILS_KEY, code_of, details_of
from toska_common.security import ManagementPolicy

log = structlog.get_logger(__name__)

LONGEST_S = 30.0
"""Of a call that has no deadline of its own, or a later one."""

Method = Callable[[Any, Access | None], Awaitable[Any]]


class Answering:
    """Admits and answers the calls of one service, and counts them.

    Args:
        counted: Name of the counter, without `_total`.
    """

    def __init__(self, policy: ManagementPolicy, registry: CollectorRegistry, counted: str) -> None:
        self._policy = policy
        self.calls = Counter(counted, "gRPC calls answered", ("method", "code"), registry=registry)

    async def answer(self, name: str, method: Method, request: Any, context: Any, needed: Access | None = None) -> Any:
        """What `method` comes to."""
        left = context.time_remaining()
        try:
            access = self.admit(context, needed)
            with anyio.fail_after(LONGEST_S if left is None else min(left, LONGEST_S)):
                answer = await method(request, access)
        except TimeoutError:
            await self.fail(name, UpstreamTimeout("no answer within the deadline of the call"), context)
        except MeshError as error:
            await self.fail(name, error, context)
        except Exception:
            log.exception("rpc_failed", method=name)
            await self.fail(name, MeshError("the service met an error that it did not foresee"), context)
        else:
            self.calls.labels(name, "OK").inc()
            return answer

    def admit(self, context: Any, needed: Access | None) -> Access | None:
        """What the caller's token allows; `needed` is `None` for a read.

        Raises:
            Unauthenticated, Forbidden: It is too little.
        """
        given = {key.lower(): value for key, value in context.invocation_metadata() or ()}
        token = bearer_token(given.get("authorization"))
        if needed is None and not self._policy.open_reads:
            needed = Access.ADMIN
        if needed is not None:
            self._policy.credentials.require(token, needed)
        return self._policy.credentials.access_of(token) if token else None

    async def fail(self, name: str, error: MeshError, context: Any) -> None:
        """End the call with an error."""
        code = code_of(error)
        self.calls.labels(name, code.name).inc()
        if code is grpc.StatusCode.INTERNAL:
            log.error("rpc_refused", method=name, code=error.code, detail=error.detail)
        await context.abort(code, error.detail, trailing_metadata=((DETAILS_KEY, details_of(error)),))
