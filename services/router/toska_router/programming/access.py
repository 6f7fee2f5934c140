"""Who may come to the router's xDS port.

It tells where everything is: to this machine alone, or to whoever shows a certificate or the admin token. Secrets are
told to nobody else, on this machine either: others may have accounts on it.
"""

from toska_common.credentials import Access, bearer_token
from toska_common.errors import Forbidden, Unauthenticated
from toska_common.security import ManagementPolicy

from toska_router.xds.access import AccessRefused, Admit, Caller
from toska_router.xds.types import SECRET


def admit_by(policy: ManagementPolicy) -> Admit:
    """The rules of a management listener, for streams."""

    def admit(caller: Caller, type_url: str) -> None:
        if caller.verified:
            return
        token = bearer_token(caller.metadata.get("authorization"))
        if token is None and policy.open_reads and type_url != SECRET:
            return
        try:
            policy.credentials.require(token, Access.ADMIN)
        except Forbidden as error:
            raise AccessRefused(error.detail, known=True) from error
        except Unauthenticated as error:
            raise AccessRefused(error.detail) from error

    return admit
