"""TLS towards RabbitMQ: whom to believe, and who we are where it asks."""

import ssl
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Self

from toska_common.errors import ConfigurationError

PARAMETERS = ("cafile", "capath", "certfile", "keyfile")
"""Of the URL. None of them turns verification off."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files that the URL names; without authorities those of the machine are believed.

    Attributes:
        cafile: Authorities to believe, PEM.
        capath: A folder of authorities, by hashes of their names as OpenSSL looks for them.
        certfile: What we show to a node that asks, PEM.
        keyfile: Its key, if the certificate's file does not have it as well.
    """

    cafile: str | None = None
    capath: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """What a URL says.

        Raises:
            ConfigurationError: A key without a certificate.
        """
        found = cls(**{name: parameters[name] or None for name in PARAMETERS if name in parameters})
        if found.keyfile and not found.certfile:
            raise ConfigurationError("the URL of RabbitMQ has a keyfile and no certfile that it belongs to")
        return found

    def context(self) -> ssl.SSLContext:
        """For one connection: files that were renewed meanwhile are read anew.

        Raises:
            ConfigurationError: A file cannot be read, or is not what it should be.
        """
        try:
            context = ssl.create_default_context(cafile=self.cafile, capath=self.capath)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"cafile in the URL of RabbitMQ: {self.cafile}: {_why(error)}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certfile:
            try:
                context.load_cert_chain(self.certfile, self.keyfile, password=_no_passphrase)
            except (OSError, ssl.SSLError, ValueError) as error:
                files = self.certfile + (f" with keyfile {self.keyfile}" if self.keyfile else "")
                raise ConfigurationError(f"certfile in the URL of RabbitMQ: {files}: {_why(error)}") from error
        return context


def tls_problem(error: BaseException) -> str:
    """What TLS said was wrong, if that is behind an error; empty if something else is."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is not believed: {one.verify_message}"
        if isinstance(one, ssl.SSLError):
            return (one.reason or str(one)).replace("_", " ").lower()
    return ""


def _causes(error: BaseException | None) -> Generator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"it is no PEM file that fits: {(error.reason or 'nothing in it').replace('_', ' ').lower()}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)


def _no_passphrase() -> str:
    # OpenSSL would ask on the terminal.
    raise ValueError("the key has a passphrase; write it without one, readable by this user alone")
