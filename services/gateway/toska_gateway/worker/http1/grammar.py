"""What heads and bodies have in common: the refusal, tokens and field lines, and a bounded memory."""

import re
from typing import Final, TypeVar

CRLF: Final = b"\r\n"
CHUNKED: Final = -1
"""`body_length` of a message whose length is not known beforehand."""

_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
TOKEN: Final = re.compile(_NAME)
# The space around a value is stripped afterwards: matching it here takes time quadratic in a run of spaces.
FIELD: Final = re.compile(_NAME + rb"+:[\t\x20-\x7e\x80-\xff]*+")

_MEMORY_ENTRIES: Final = 1024
_MEMORY_KEY_BYTES: Final = 512

T = TypeVar("T")


class BadMessage(Exception):
    """A message that cannot be served: `status` and `code` of the answer, and the reason."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason


def remember(memory: dict[bytes, T], key: bytes, value: T, most: int = _MEMORY_ENTRIES) -> None:
    """Keep a result under the bytes that it came from; a full memory starts anew."""
    # Keys come from strangers, so they are bounded in number and in length: 1,024 lines of 60 KB would be 60 MB.
    if len(key) <= _MEMORY_KEY_BYTES:
        if len(memory) >= most:
            memory.clear()
        memory[key] = value
