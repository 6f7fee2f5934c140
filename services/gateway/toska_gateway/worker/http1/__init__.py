"""Reading HTTP/1.1 messages strictly, and framing bodies (RFC 9112). No I/O: bytes in, heads and payload out.

A head is split at its CRLFs, and every line is held to the grammar by one regular expression: so bare CR or LF, NUL,
obs-fold, a space before the colon and bad names cannot pass. What a line comes to is remembered by its bytes: of the
fields that clients and services send, most are the same from one message to the next, and a look-up costs a fifth of
an analysis (figures in docs/performance.md). The memory is bounded and starts anew when it is full.

What is forwarded is built from what was understood, never copied through.

    requests ─┐            ┌─ targets   paths, hosts, the absolute form
    responses ┼─ fields ───┴─ grammar   what all of them are made of
    bodies    ┘                         the chunked coding
"""

from toska_gateway.worker.http1.bodies import ChunkedDecoder
from toska_gateway.worker.http1.fields import (
    TOKEN_PREFIX,
    drop_fields,
    field_name,
    field_value,
    forget_bytes,
)
from toska_gateway.worker.http1.grammar import CHUNKED, CRLF, BadMessage
from toska_gateway.worker.http1.requests import ASTERISK, IDEMPOTENT, METHODS, RequestHead, read_request
from toska_gateway.worker.http1.responses import MAX_RESPONSE_HEAD, ResponseHead, read_response
from toska_gateway.worker.http1.targets import encode_path, normalize_path, unescape_slashes

__all__ = [
    "ASTERISK",
    "CHUNKED",
    "CRLF",
    "IDEMPOTENT",
    "MAX_RESPONSE_HEAD",
    "METHODS",
    "TOKEN_PREFIX",
    "BadMessage",
    "ChunkedDecoder",
    "RequestHead",
    "ResponseHead",
    "drop_fields",
    "encode_path",
    "field_name",
    "field_value",
    "forget_bytes",
    "normalize_path",
    "read_request",
    "read_response",
    "unescape_slashes",
]
