"""TLS towards a registry: whom to believe, and who we are where the registry asks."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from toska_common.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RegistryTls:
    """Files of one registry; without any, the machine's own authorities are believed and we show nothing.

    Attributes:
        ca: Authorities to believe instead of the machine's, PEM.
        certificate: What we show to a registry that asks, PEM.
        key: Its key, if the certificate's file does not have it as well.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """The context of connections; `None` for the default one.

        Raises:
            ConfigurationError: A file cannot be read, or is not what it should be.
        """
        if self.ca is None and self.certificate is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"TOSKA_REGISTRY_CA: cannot use {self.ca}: {error}") from error
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                files = f"{self.certificate}" + (f" with {self.key}" if self.key is not None else "")
                raise ConfigurationError(f"TOSKA_REGISTRY_CERTIFICATE: cannot use {files}: {error}") from error
        return context
