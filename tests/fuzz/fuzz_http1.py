"""Coverage-guided fuzzing of the reading of HTTP/1.1: `python tests/fuzz/fuzz_http1.py TARGET [options of libFuzzer]`.

What is accepted has to mean the same to h11 or to the letter of the RFC, whatever the pieces it came in; all else has
to be refused with `BadMessage`, and nothing else may be raised. `make fuzz` runs all targets; it installs atheris.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["toska_gateway.worker.http1"]):
    from toska_gateway.worker.http1 import (
        CHUNKED,
        BadMessage,
        ChunkedDecoder,
        encode_path,
        normalize_path,
        read_request,
        read_response,
        unescape_slashes,
    )

from toska_tests.http_reference import requests_in, resolved, response_in  # noqa: E402 - by the path that was added


def a_request(data: bytes) -> None:
    """A head that is accepted is one to h11 too, and what is passed on cannot grow lines."""
    head_bytes = data[: data.find(b"\r\n\r\n") + 4] or data + b"\r\n\r\n"
    if head_bytes.startswith(b"\r\n"):
        return
    try:
        head = read_request(head_bytes, 100, 8192)
    except BadMessage as error:
        assert 400 <= error.status < 600
        return
    body = b"0\r\n\r\n" if head.body_length == CHUNKED else b"x" * min(head.body_length, 100_000)
    if head.body_length > 100_000:
        return
    meant = list(requests_in(head_bytes + body))
    assert len(meant) == 1, "h11 sees no request"
    assert meant[0].start.startswith(head.method.decode() + " ")
    assert meant[0].host == head.host.lower()
    for part in filter(None, head.parts[1:]):
        assert part.endswith(b"\r\n")
        assert not set(part[:-2]) & set(b"\r\n\x00")


def a_response(data: bytes) -> None:
    """A response's head that is accepted is one to h11 too."""
    head_bytes = data[: data.find(b"\r\n\r\n") + 4] or data + b"\r\n\r\n"
    try:
        head = read_response(head_bytes, bodiless=False)
    except BadMessage as error:
        assert error.status == 502
        return
    length = head.body_length
    if head.status < 200 or (length is not None and length > 100_000):
        return
    body = b"0\r\n\r\n" if length == CHUNKED else b"x" * (length or 0)
    meant = response_in(head_bytes + body, "GET", closed=length is None)
    assert meant is not None, "h11 sees no response"
    assert meant.start == str(head.status)


def a_chunked_body(data: bytes) -> None:
    """Payload and end do not depend on the pieces, and are those of the RFC's letter."""
    cut = data[0] if data else 0
    data = data[1:]
    whole, pieces = _decoded([data]), _decoded([data[:cut], data[cut:]])
    assert whole == pieces
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    meant = next(iter(requests_in(head + data)), None)
    assert whole is None or (meant is not None and whole[0] == meant.body)


def _decoded(pieces: list[bytes]) -> tuple[bytes, bytes] | None:
    decoder, payload = ChunkedDecoder(), b""
    try:
        for number, piece in enumerate(pieces):
            payload += decoder.feed(piece)
            if decoder.rest is not None:
                return payload, decoder.rest + b"".join(pieces[number + 1 :])
    except BadMessage as error:
        assert error.status == 400
    return None


def a_path(data: bytes) -> None:
    """A path has one form, which travels and comes back as it is, and no way out of it."""
    try:
        path = normalize_path(b"/" + data)
    except BadMessage as error:
        assert error.status == 400
        return
    assert normalize_path(encode_path(path)) == path
    assert not {b".", b".."} & set(path.split(b"/"))
    assert b"//" not in path
    if not set(path) & {1, 2}:
        assert path == resolved(b"/" + data)
    plain = unescape_slashes(path)
    assert not {b".", b".."} & set(plain.split(b"/"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": a_request,
    "response": a_response,
    "chunked": a_chunked_body,
    "path": a_path,
}


def main() -> None:
    """Fuzz the target that the first argument names."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
