"""Secrets of webhooks: how they are kept, and how they sign. Pure but for randomness.

A secret is kept sealed by AES-256-GCM under a key that is derived from the admin token, which all events services of a
mesh share: whoever reads the registry's keys, or a backup of them, cannot sign. With another admin token the secrets
cannot be opened, and the webhooks have to be subscribed anew.
Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import secrets
from datetime import datetime

from toska_common.contracts.webhooks import SECRET_PREFIX, secret_bytes
from toska_common.errors import MeshError
from toska_common.events.event import Event

_NONCE_BYTES = 12
_KEY_BYTES = 32
_PURPOSE = b"toska events: secrets of webhooks, v1"


class UnreadableSecret(MeshError):
    """A webhook's secret was sealed under another admin token."""

    code, title = "unreadable-secret", "Unreadable secret"


def new_secret() -> str:
    """A secret of 256 bits."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


class Safe:
    """Seals and opens secrets."""

    def __init__(self, admin_token: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        self._cipher = AESGCM(HKDF(SHA256(), _KEY_BYTES, None, _PURPOSE).derive(admin_token.encode()))

    def seal(self, secret: str, webhook_id: str) -> str:
        """The secret as it is stored, for this webhook alone."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, secret.encode(), webhook_id.encode())).decode()

    def open(self, sealed: str, webhook_id: str) -> str:
        """The secret itself.

        Raises:
            UnreadableSecret: It was sealed under another admin token, or for another webhook.
        """
        from cryptography.exceptions import InvalidTag

        try:
            data = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], webhook_id.encode()).decode()
        except (InvalidTag, ValueError) as error:
            reason = "its secret was sealed under another admin token: unsubscribe it, and subscribe anew"
            raise UnreadableSecret(f"webhook {webhook_id}: {reason}", webhook=webhook_id) from error


def message_id(event: Event) -> str:
    """One per event, the same at each attempt: by it a receiver knows doubles."""
    digest = hashlib.sha256(f"{event.source}\0{event.id}".encode()).hexdigest()
    return f"msg_{digest[:32]}"


def signed_headers(secret: str, id_: str, now: datetime, body: bytes) -> dict[str, str]:
    """The three headers of a signed message."""
    timestamp = str(int(now.timestamp()))
    content = b".".join((id_.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(secret_bytes(secret), content, "sha256")).decode()
    return {"webhook-id": id_, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}
