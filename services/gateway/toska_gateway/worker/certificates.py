"""TLS contexts of a worker, built from the certificates and keys that its parent has read.

The parent builds them too before it hands anything out, so what a worker is given can be used.
"""

import contextlib
import os
import ssl
from collections.abc import Generator
from typing import IO, Any, Final

from toska_gateway.worker.ticket_keys import set_ticket_keys

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else."""
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_ALPN: Final = ("http/1.1",)


class UnusableCertificate(ValueError):
    """A certificate, key or list of authorities that TLS cannot be spoken with. Says why, without a byte of it."""


class ServerContexts:
    """What listeners show: one context for each certificate, chosen by the name that the client asks for.

    Args:
        material: `pairs` (each `certificate`, `key` and `names`), `min_version`, `unknown_names` and `client`.
        secret: What session tickets are sealed with, the same in all workers.

    Raises:
        UnusableCertificate: OpenSSL does not take something of it.
    """

    def __init__(self, material: dict[str, Any], secret: bytes) -> None:
        self._client: dict[str, Any] | None = material["client"]
        self._exact: dict[str, ssl.SSLContext] = {}
        self._wildcards: dict[str, ssl.SSLContext] = {}
        self._contexts: list[ssl.SSLContext] = []
        for pair in material["pairs"]:
            context = self._build(pair, _VERSIONS[material["min_version"]])
            self._contexts.append(context)
            for name in pair["names"]:
                known = self._wildcards if name.startswith("*.") else self._exact
                known.setdefault(name.removeprefix("*"), context)
        self.default = self._contexts[0]
        self._fallback = None if material["unknown_names"] == "refuse" else self.default
        if len(self._contexts) > 1 or self._fallback is None:
            self.default.sni_callback = self._choose
        self.tickets_shared = self.take_ticket_secret(secret)

    def take_ticket_secret(self, secret: bytes) -> bool:
        """Seal tickets anew; those sealed before are as good as none. Tells whether other workers can read them."""
        client = self._client
        purpose = b"" if client is None else f"{client['mode']}\n{client['ca']}".encode()
        taken = [set_ticket_keys(context, secret, purpose) for context in self._contexts]
        return all(taken)

    def find(self, name: str | None) -> ssl.SSLContext | None:
        """The context for a name, `None` if such a client is to be refused."""
        if name is None:
            return self._fallback
        name = name.lower().rstrip(".")
        found = self._exact.get(name)
        if found is None:
            # RFC 6125 §6.4.3: the star stands for one label.
            found = self._wildcards.get(name[name.find(".") :]) if "." in name else None
        return found or self._fallback

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        context = self.find(name)
        if context is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        if context is not self.default:
            connection.context = context
        return None

    def _build(self, pair: dict[str, Any], minimum: ssl.TLSVersion) -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_SERVER, minimum)
        context.set_alpn_protocols(_ALPN)
        load_pair(context, pair["certificate"], pair["key"])
        if self._client is not None:
            load_authorities(context, self._client["ca"])
            context.verify_mode = ssl.CERT_REQUIRED if self._client["mode"] == "require" else ssl.CERT_OPTIONAL
        return context


class ClientContext:
    """How a cluster's endpoints are spoken to, and who they have to be.

    Args:
        material: `ca`, `certificate`, `key`, `server_name`, `min_version`, `insecure` and an `identity` for all of it.

    Raises:
        UnusableCertificate: OpenSSL does not take something of it.
    """

    __slots__ = ("context", "identity", "server_name")

    def __init__(self, material: dict[str, Any]) -> None:
        self.identity: str = material["identity"]
        self.server_name: str | None = material["server_name"]
        self.context = context = _context(ssl.PROTOCOL_TLS_CLIENT, _VERSIONS[material["min_version"]])
        context.hostname_checks_common_name = False
        context.set_alpn_protocols(_ALPN)
        if material["insecure"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif material["ca"] is not None:
            load_authorities(context, material["ca"])
        else:
            context.load_default_certs()
        if material["certificate"] is not None:
            load_pair(context, material["certificate"], material["key"])


def _context(role: int, minimum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(role)
    context.minimum_version = minimum
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def load_authorities(context: ssl.SSLContext, pem: str) -> None:
    """Believe what these authorities have signed.

    Raises:
        UnusableCertificate: It holds no certificate, or a broken one.
    """
    try:
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise UnusableCertificate("holds no certificates in PEM form, or a broken one") from error


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Show this certificate.

    Raises:
        UnusableCertificate: It cannot be read, or the key is another's.
    """
    with _file(certificate) as chain_file, _file(key) as key_file:
        try:
            context.load_cert_chain(chain_file, key_file, password=_no_passphrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise UnusableCertificate("the key does not belong to the certificate") from error
            if error.reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
                raise UnusableCertificate("the key or the signature is too weak for TLS today") from error
            raise UnusableCertificate("no certificate and key in PEM form that OpenSSL can read") from error


def _no_passphrase() -> str:
    raise UnusableCertificate("the key is protected by a passphrase, and nobody is there to enter it")


def _anonymous_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("toska-tls"), "wb")
    import tempfile  # here: macOS alone needs it

    return tempfile.TemporaryFile()


@contextlib.contextmanager
def _file(content: str) -> Generator[str]:
    """A path for what OpenSSL reads only from files: never on a disk where there is a way around it."""
    with _anonymous_file() as file:
        file.write(content.encode())
        file.flush()
        yield f"/dev/fd/{file.fileno()}"
