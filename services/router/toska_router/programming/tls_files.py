"""The files of the xDS server's TLS: read at the start, looked at every second, and read again when they change.

What cannot be used is refused with its reason and what was in use stays, so a renewal that writes certificate and key
one after the other does no harm in between.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import structlog
from toska_common.errors import ConfigurationError
from toska_common.files import Stamp, read_file, stamp

from toska_router.xds import ServerTls

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
_SETTLED_S = 0.1
_MAX_BYTES = 4 * 2**20


class TlsFiles:
    """A certificate, its key and perhaps an authority of clients, in PEM.

    Attributes:
        problem: Why what the files have now is not used; empty if it is.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._stamps: list[Stamp] = []
        self._in_use: ServerTls | None = None
        self.problem = ""

    def open(self) -> Callable[[], ServerTls]:
        """Read the files; what is given tells what is in use, now and later.

        Raises:
            ConfigurationError: They cannot be used.
        """
        self._stamps = self._look()
        first = self._read()
        self._in_use = first
        return lambda: self._in_use or first

    async def follow(self) -> None:
        """Use what the files have whenever they change, for ever."""
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            if self._look() != self._stamps:
                await self._settle()
                await self._renew()

    async def _settle(self) -> None:
        while True:
            self._stamps = self._look()
            await anyio.sleep(_SETTLED_S)
            if self._look() == self._stamps:
                return

    async def _renew(self) -> None:
        try:
            self._in_use = await anyio.to_thread.run_sync(self._read)
        except ConfigurationError as error:
            self.problem = error.detail
            log.error("xds_tls_files_refused", reason=error.detail, remedy="what was read before is used on")
        else:
            self.problem = ""
            log.info("xds_tls_files_reloaded", certificate=str(self._certificate))

    def _look(self) -> list[Stamp]:
        return [stamp(path) for path in (self._certificate, self._key, self._client_ca) if path is not None]

    def _read(self) -> ServerTls:
        """What the files have, if certificate and key belong together."""
        try:
            authority = None if self._client_ca is None else read_file(self._client_ca, _MAX_BYTES)
            tls = ServerTls(read_file(self._certificate, _MAX_BYTES), read_file(self._key, _MAX_BYTES), authority)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # An empty passphrase, since OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._certificate, self._key, password="")
            if authority is not None:
                context.load_verify_locations(cadata=authority.decode("ascii"))
        except ssl.SSLError as error:
            which = f"{self._certificate} with {self._key}" + (f", or {self._client_ca}" if self._client_ca else "")
            raise ConfigurationError(f"cannot use {which} for xDS: {error.reason or error}") from error
        except OSError as error:
            raise ConfigurationError(f"cannot read {error.filename or 'a file'} for xDS: {error.strerror}") from error
        except ValueError as error:
            raise ConfigurationError(f"{self._client_ca} holds no certificate in PEM form, for xDS") from error
        return tls
