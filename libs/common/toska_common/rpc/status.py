"""Our errors as gRPC statuses, with the same facts in their details as a problem document has.

Sources: https://grpc.io/docs/guides/status-codes and https://google.aip.dev/193.
"""

from typing import Any

import grpc
from google.rpc import (  # pyright: ignore[reportMissingTypeStubs] - made by protoc, without types
    error_details_pb2,
    status_pb2,
)

from toska_common.errors import MeshError

DOMAIN = "toska"
DETAILS_KEY = "grpc-status-details-bin"
MAX_METADATA = 16

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def code_of(error: MeshError) -> grpc.StatusCode:
    """The status of an error."""
    return _CODES.get(error.status, grpc.StatusCode.INTERNAL)


def details_of(error: MeshError) -> bytes:
    """The error as an encoded `google.rpc.Status`."""
    details: Any = error_details_pb2  # made by protoc, without types
    found = {key: str(value) for key, value in error.extensions.items() if key != "problems"}
    status: Any = status_pb2.Status(code=code_of(error).value[0], message=error.detail)
    info = details.ErrorInfo(
        reason=error.code.upper().replace("-", "_"),
        domain=DOMAIN,
        metadata=dict(list(found.items())[:MAX_METADATA]),
    )
    status.details.add().Pack(info)
    problems = error.extensions.get("problems", ())
    if problems:
        violations = [
            details.BadRequest.FieldViolation(field=item["field"], description=item["reason"]) for item in problems
        ]
        status.details.add().Pack(details.BadRequest(field_violations=violations))
    return status.SerializeToString()
