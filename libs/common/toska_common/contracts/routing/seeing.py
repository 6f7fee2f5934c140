"""What a gateway tells of the requests that it serves: the access log, and spans."""

from collections.abc import Mapping
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.words import HeaderName, HeaderValue

STDOUT: Final = "stdout"


def _file(value: str) -> str:
    if "\0" in value or value.endswith("/"):
        raise ValueError("give the path of a file")
    return value


FilePlace = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_file)]


class AccessLog(Document):
    """A line of JSON for each request, in a file that all workers append to.

    It may be rotated at any time: a file that was moved away is replaced by a new one.
    """

    path: FilePlace = Field(description="stdout, or a file; a relative path begins where those of certificates do")
    sample: float = Field(default=1.0, ge=0, le=1, description="Share of the requests that get a line")
    errors_always: bool = Field(
        default=True, description="Requests that failed (5xx, or broken off) get one whatever `sample` says"
    )
    query: bool = Field(
        default=False, description="Tell the query too; what looks like a credential is masked, and only that"
    )


class AccessLogPolicy(Document):
    """What a route has different from `server.access_log`."""

    sample: float = Field(default=1.0, ge=0, le=1)
    errors_always: bool = True


def _collector(value: str) -> str:
    parts = urlsplit(value)
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError("the port is no number from 0 to 65535") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write the URL of a collector, such as http://127.0.0.1:4318")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a collector's URL has no user, query or fragment; credentials go into headers")
    return value.rstrip("/")


class Tracing(Document):
    """Spans of sampled requests, sent to a collector in batches by OTLP over HTTP.

    A request that a trusted proxy has decided about is sampled as that says; of the others, `sample` are.
    """

    endpoint: Annotated[str, StringConstraints(max_length=1024), AfterValidator(_collector)] = Field(
        description="Base URL of the collector; spans go to /v1/traces below it, if it does not end so"
    )
    sample: float = Field(default=0.01, ge=0, le=1, description="Share of the traces that begin here")
    headers: Mapping[HeaderName, HeaderValue] = Field(
        default_factory=dict[str, str], description="Sent with each batch; no secrets, for routing can be read"
    )
    header_files: Mapping[HeaderName, FilePlace] = Field(
        default_factory=dict[str, str],
        description="Sent with each batch, each the content of a file, which may change; relative as certificates are",
    )
    service_name: str = Field(default="toska-gateway", min_length=1, max_length=128)

    @field_validator("headers", "header_files")
    @classmethod
    def _not_ours(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        wrong = sorted({"host", "content-length", "content-type", "transfer-encoding", "connection"} & set(value))
        if wrong:
            raise ValueError(f"{', '.join(wrong)} is the exporter's own")
        return value

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if "authorization" in value:
            raise ValueError("everybody who may read the routing would see it: name a file in header_files")
        return value
