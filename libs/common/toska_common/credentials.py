"""The mesh's two credentials: `admin` (all changes) and `join` (register, renew, deregister, publish).

Each is a file of mode 0600, made exclusively at the first start. From `admin` follows one for the sagas of each
service (`sagas_token`). Tokens carry a prefix that tells what they are, so
that the gateway can keep them from users' services and a leaked one can be found.
"""

import base64
import hmac
import os
import secrets
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from toska_common.errors import ConfigurationError, Forbidden, Unauthenticated

TOKEN_PREFIX = "toska_"  # noqa: S105 - the public part of every token


class Access(StrEnum):
    """What a credential allows; `admin` includes `join`."""

    ADMIN = "admin"
    JOIN = "join"


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """The tokens that a management listener accepts; an empty one matches nothing."""

    admin: str
    join: str

    def access_of(self, token: str) -> Access | None:
        """What `token` allows, compared in constant time; `None` if it is not ours."""
        given = token.encode()
        if self.admin and hmac.compare_digest(given, self.admin.encode()):
            return Access.ADMIN
        if self.join and hmac.compare_digest(given, self.join.encode()):
            return Access.JOIN
        return None

    def require(self, token: str | None, needed: Access) -> None:
        """Let a bearer of `needed` pass.

        Raises:
            Unauthenticated: No token, or an unknown one.
            Forbidden: The join token, where admin is needed.
        """
        if not token:
            raise Unauthenticated("this needs a token: send Authorization: Bearer <token>", needs=needed.value)
        access = self.access_of(token)
        if access is None:
            raise Unauthenticated("the token is not known to this mesh", needs=needed.value)
        if needed is Access.ADMIN and access is not Access.ADMIN:
            raise Forbidden("the join token cannot do this: the admin token is needed", needs=needed.value)


def bearer_token(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header (RFC 6750 §2.1)."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def sagas_token(admin: str, service: str) -> str:
    """What the mesh shows to a service when it steers the service's sagas.

    Whoever holds the join token can register under any service's name, and is then asked: what it is shown must not
    open anything but the sagas of that service, so it is never the admin token itself.
    """
    digest = hmac.new(admin.encode(), f"sagas of {service}".encode(), sha256).digest()
    return f"{TOKEN_PREFIX}sagas_{base64.urlsafe_b64encode(digest).decode('ascii').rstrip('=')}"


def read_token(path: Path) -> str:
    """Read a token file.

    Raises:
        ConfigurationError: It is not there, not readable, or empty.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the token file {path}: {error}") from error
    if not token:
        raise ConfigurationError(f"the token file {path} is empty; delete it and restart the mesh to make a new one")
    return token


def ensure_token(path: Path, access: Access) -> str:
    """Read the token at `path`, or make it; two processes that start at once agree on one."""
    return ensure_secret(path, f"{TOKEN_PREFIX}{access.value}_")


def ensure_secret(path: Path, prefix: str = "") -> str:
    """Read the secret at `path`, or make one of 256 bits; two processes that start at once agree on it."""
    if path.exists():  # and nothing is written: on a full disk a mesh has to start as well
        return read_token(path)
    secret = prefix + secrets.token_urlsafe(32)
    try:
        _write_exclusively(path, secret)
    except FileExistsError:
        return read_token(path)
    return secret


def _write_exclusively(path: Path, token: str) -> None:
    # Written beside and linked into place: the name never stands for a half-written token.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
        os.link(draft, path)
    finally:
        draft.unlink()


def ensure_credentials(home: Path) -> Credentials:
    """The credentials of a mesh whose state lives in `home`."""
    return Credentials(
        admin=ensure_token(home / "admin.token", Access.ADMIN), join=ensure_token(home / "join.token", Access.JOIN)
    )
