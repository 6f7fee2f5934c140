"""Heads of requests given by their lines, for tests of how they are read."""

import pytest
from toska_gateway.worker.http1 import (
    BadMessage,
    RequestHead,
    read_request,
)


def read(*lines: str, host: str | None = "test") -> RequestHead:
    """Read a head given by its lines; a Host is added."""
    all_lines = [lines[0], *([f"Host: {host}"] if host is not None else []), *lines[1:], "", ""]
    return read_request("\r\n".join(all_lines).encode("latin-1"), 100, 8192)


def refusal(*lines: str, host: str | None = "test") -> int:
    """The status with which a head is refused."""
    with pytest.raises(BadMessage) as refused:
        read(*lines, host=host)
    return refused.value.status


def passed_on(head: RequestHead) -> list[bytes]:
    """The field lines that are passed on."""
    return [part for part in head.parts[1:] if part]
