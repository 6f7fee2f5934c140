"""Messages as bytes, for those who have nothing particular in mind."""

from collections.abc import Sequence

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def get(target: str = "/", *fields: str, version: str = "HTTP/1.1", host: str | None = "test") -> bytes:
    """A GET request."""
    return request("GET", target, *fields, version=version, host=host)


def request(
    method: str,
    target: str = "/",
    *fields: str,
    body: bytes | None = None,
    version: str = "HTTP/1.1",
    host: str | None = "test",
) -> bytes:
    """A request with a Host and, if it has a body, a Content-Length."""
    lines = [f"{method} {target} {version}", *([f"host: {host}"] if host is not None else []), *fields]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def response(status: int, *fields: str, body: bytes = b"", length: bool = True) -> bytes:
    """A response, with a Content-Length unless `length` is false."""
    lines = [f"HTTP/1.1 {status} Some Reason", *fields]
    if length:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunks(pieces: Sequence[bytes], *, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """A chunked body."""
    parts = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join(parts) + b"0" + extension + b"\r\n" + trailers + b"\r\n"
