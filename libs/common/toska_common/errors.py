"""The errors of the mesh: one hierarchy, each with a fault (whose it was) and an HTTP answer.

    MeshError                     500  mesh      what nobody foresaw is a bug of ours
    ├── CallerError               400  caller    the request cannot be served as it was sent
    │   ├── InvalidInput          422  caller    well-formed, but a field is wrong; `problems` names each
    │   ├── Unauthenticated       401  caller    no credential, or one that is not ours
    │   ├── Forbidden             403  caller    a credential that may not do this
    │   ├── NotFound              404  caller
    │   ├── Conflict              409  caller    the state changed, or someone else holds it
    │   ├── PreconditionFailed    412  caller    If-Match does not match
    │   ├── BodyTooLarge          413  caller    the body has more bytes than are read here
    │   └── MisdirectedRequest    421  caller    a Host name that this listener does not answer to
    ├── UpstreamError             502  upstream  the upstream failed; outlier detection counts it
    │   ├── UpstreamUnavailable   503  upstream  nobody is there to serve it
    │   │   └── CircuitOpen       503  upstream  the breaker fails fast; `retry_after_s` says how long
    │   └── UpstreamTimeout       504  upstream
    └── ConfigurationError        500  mesh      a setting is wrong; the process does not start

Services add subclasses of their own in their `errors.py`.
"""

from typing import Any, ClassVar, Literal

Fault = Literal["caller", "upstream", "mesh"]


class MeshError(Exception):
    """An error with an HTTP rendering (`toska_common.problem`).

    Args:
        detail: What happened this time, for a person; never a secret.
        extensions: Members added to the problem document (RFC 9457 §3.2).
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    fault: ClassVar[Fault] = "mesh"

    def __init__(self, detail: str, **extensions: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extensions = extensions

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that belong to the error."""
        return {}


class CallerError(MeshError):
    """The request cannot be served as it was sent."""

    status, code, title, fault = 400, "bad-request", "Bad request", "caller"


class InvalidInput(CallerError):
    """Well-formed, but wrong; `problems` lists `{"field": ..., "reason": ...}`, with `line` where there is one."""

    status, code, title = 422, "invalid-input", "Invalid input"


class Unauthenticated(CallerError):
    """No credential, or one that is not known here."""

    status, code, title = 401, "unauthenticated", "Credential required"

    @property
    def headers(self) -> dict[str, str]:
        return {"www-authenticate": 'Bearer realm="toska"'}


class Forbidden(CallerError):
    """The credential is known and does not allow this."""

    status, code, title = 403, "forbidden", "Not allowed"


class NotFound(CallerError):
    """There is no such thing."""

    status, code, title = 404, "not-found", "Not found"


class Conflict(CallerError):
    """The state is not what the caller took it for."""

    status, code, title = 409, "conflict", "Conflict"


class PreconditionFailed(CallerError):
    """`If-Match` names a version that is no longer current (RFC 9110 §13.1.1)."""

    status, code, title = 412, "precondition-failed", "Precondition failed"


class BodyTooLarge(CallerError):
    """The body has more bytes than are read here (RFC 9110 §15.5.14)."""

    status, code, title = 413, "body-too-large", "Request body too large"


class MisdirectedRequest(CallerError):
    """The Host is not one of this listener's names: a rebound DNS name, or a wrong address (RFC 9110 §15.5.20)."""

    status, code, title = 421, "misdirected-request", "Unknown host name"


class UpstreamError(MeshError):
    """The upstream failed, not the caller; counted by outlier detection."""

    status, code, title, fault = 502, "upstream-error", "Upstream failed", "upstream"


class UpstreamUnavailable(UpstreamError):
    """No endpoint can take the request."""

    status, code, title = 503, "upstream-unavailable", "No upstream available"


class CircuitOpen(UpstreamUnavailable):
    """The circuit is open: the call fails at once, without an attempt."""

    code, title = "circuit-open", "Circuit open"

    @property
    def headers(self) -> dict[str, str]:
        after = self.extensions.get("retry_after_s")
        return {} if after is None else {"retry-after": str(max(1, round(after)))}


class UpstreamTimeout(UpstreamError):
    """The upstream, or what was left of the deadline, took too long."""

    status, code, title = 504, "upstream-timeout", "Upstream timed out"


class ConfigurationError(MeshError):
    """A setting is wrong; nothing was opened. The message names the variable and what to do."""

    code, title = "configuration-error", "Wrong configuration"
