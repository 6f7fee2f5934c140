"""Certificates and keys as the data plane is given them: read from their files, checked, and proven to work.

A table names files; `read_material` turns those into what workers build their contexts from. Whatever is wrong is a
problem with the place in the routing and the file, and never with a byte of its content.
"""

import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from toska_common.clock import now_utc
from toska_common.contracts.routing import RouteTable
from toska_common.contracts.tls import CertificatePair, ClusterTls, ServerTls
from toska_common.files import Stamp, stamp
from toska_common.routing.problems import Finding, Location, format_location

from toska_gateway.worker.certificates import ClientContext, ServerContexts, UnusableCertificate

log = structlog.get_logger(__name__)

_MAX_BYTES = 4 * 2**20
_SOON = timedelta(days=14)


@dataclass(frozen=True)
class TlsMaterial:
    """All that TLS needs of a table. It holds private keys, so its `repr` shows nothing.

    Attributes:
        version: A hash of everything in it; empty if there is nothing.
        server: For listeners.
        clusters: For each cluster that speaks TLS.
        files: Every file it was read from, with its stamp at that time.
        notes: What is not wrong and should be known: who can read a key, which certificate expires.
    """

    version: str = ""
    server: dict[str, Any] | None = field(default=None, repr=False)
    clusters: Mapping[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]], repr=False)
    files: Mapping[Path, Stamp] = field(default_factory=dict[Path, Stamp])
    notes: tuple[tuple[str, Mapping[str, str]], ...] = ()


NO_TLS = TlsMaterial()


class TlsFilesRefused(Exception):
    """Files that cannot be used. `findings` names each with its place in the routing; `files` says what to watch."""

    def __init__(self, findings: Sequence[Finding], files: Mapping[Path, Stamp]) -> None:
        self.findings = findings
        self.files = files
        super().__init__("; ".join(f"{problem['field']}: {problem['reason']}" for problem in self.problems))

    @property
    def problems(self) -> list[dict[str, str]]:
        """The findings, as problem documents and logs name them."""
        return [{"field": format_location(one.location), "reason": one.reason} for one in self.findings]


def read_material(table: RouteTable, folder: Path) -> TlsMaterial:
    """Read everything that a table names; relative paths are looked up in `folder`. Reads files, so in a thread.

    Raises:
        TlsFilesRefused: With all that is wrong.
    """
    reader = _Reader(folder)
    server = None if table.server.tls is None else reader.server(table.server.tls)
    clusters = {
        name: material
        for name, cluster in table.clusters.items()
        if cluster.tls is not None and (material := reader.cluster(("clusters", name, "tls"), cluster.tls)) is not None
    }
    if reader.findings:
        raise TlsFilesRefused(reader.findings, reader.files)
    if server is None and not clusters:
        return NO_TLS
    version = _digest({"server": server, "clusters": clusters})
    return TlsMaterial(version, server, clusters, reader.files, tuple(reader.notes))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


_SERVER: Location = ("server", "tls")


class _Reader:
    """Reads files one by one and gathers what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.findings: list[Finding] = []
        self.notes: list[tuple[str, Mapping[str, str]]] = []
        self.files: dict[Path, Stamp] = {}

    def server(self, tls: ServerTls) -> dict[str, Any] | None:
        pairs = [self._pair((*_SERVER, *at), pair) for at, pair in tls.pairs]
        client = None
        if tls.client is not None:
            client = {"ca": self._read((*_SERVER, "client", "ca"), tls.client.ca), "mode": tls.client.mode}
        if self.findings:
            return None
        material = {
            "pairs": pairs,
            "client": client,
            "min_version": tls.min_version,
            "unknown_names": tls.unknown_names,
        }
        for (at, pair), each in zip(tls.pairs, pairs, strict=True):
            # One at a time, so that a problem is that of one certificate.
            alone = {**material, "pairs": [each], "client": None}
            self._try((*_SERVER, *at), f"{pair.certificate}, {pair.key}", ServerContexts, alone, bytes(32))
        if tls.client is not None and not self.findings:
            self._try((*_SERVER, "client", "ca"), tls.client.ca, ServerContexts, material, bytes(32))
        return material

    def cluster(self, at: Location, tls: ClusterTls) -> dict[str, Any] | None:
        before = len(self.findings)
        material: dict[str, Any] = tls.model_dump()
        material["ca"] = None if tls.ca is None else self._read((*at, "ca"), tls.ca)
        if tls.certificate is not None and tls.key is not None:
            pair = self._pair(at, CertificatePair(certificate=tls.certificate, key=tls.key, names=("unused",)))
            material |= {"certificate": pair["certificate"], "key": pair["key"]}
        material["identity"] = _digest(material)
        if len(self.findings) > before:
            return None
        only_ca = {**material, "certificate": None, "key": None}
        if self._try((*at, "ca"), tls.ca or "", ClientContext, only_ca):
            self._try(at, f"{tls.certificate}, {tls.key}", ClientContext, material)
        return material

    def _try(self, at: Location, files: str, build: Any, *arguments: Any) -> bool:
        try:
            build(*arguments)
        except (UnusableCertificate, ValueError) as error:
            reason = str(error) if isinstance(error, UnusableCertificate) else "cannot be used"
            self.findings.append(Finding(at, f"{files}: {reason}"))
            return False
        return True

    def _pair(self, at: Location, pair: CertificatePair) -> dict[str, Any]:
        certificate = self._read((*at, "certificate"), pair.certificate)
        key = self._read((*at, "key"), pair.key, secret=True)
        names = list(pair.names)
        if certificate:
            found = self._look_at((*at, "certificate"), pair.certificate, certificate)
            names = names or found
        return {"certificate": certificate, "key": key, "names": names}

    def _look_at(self, at: Location, name: str, pem: str) -> list[str]:
        """The names that a certificate is made out for; notes if it is not valid now."""
        from cryptography import x509  # here: 50 ms to import, which only those pay that speak TLS

        try:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = [one.lower() for one in found.get_values_for_type(x509.DNSName)]
        except x509.ExtensionNotFound:
            return []
        except ValueError:
            self.findings.append(Finding(at, f"{name}: holds no certificate in PEM form"))
            return []
        now = now_utc()
        until = certificate.not_valid_after_utc
        if until < now + _SOON:
            event = "certificate_expired" if until < now else "certificate_expires_soon"
            self.notes.append((event, {"path": name, "until": until.isoformat()}))
        elif certificate.not_valid_before_utc > now:
            self.notes.append(
                ("certificate_not_yet_valid", {"path": name, "since": certificate.not_valid_before_utc.isoformat()})
            )
        return names

    def _read(self, at: Location, name: str, *, secret: bool = False) -> str:
        path = self._folder / Path(name).expanduser()
        self.files[path] = stamp(path)
        try:
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise OSError("is not a file")
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except OSError as error:
            self.findings.append(Finding(at, f"{name}: cannot be read: {error.strerror or error}"))
            return ""
        if len(content) > _MAX_BYTES:
            self.findings.append(Finding(at, f"{name}: has more than {_MAX_BYTES} bytes"))
            return ""
        if secret and mode & 0o077:
            self.notes.append(("key_readable_by_others", {"path": str(path), "mode": f"{stat.S_IMODE(mode):04o}"}))
        try:
            return content.decode("ascii")
        except UnicodeDecodeError:
            # PEM may have comments around it, in any coding; OpenSSL looks at none of them.
            return content.decode("latin-1").encode("ascii", "replace").decode("ascii")
