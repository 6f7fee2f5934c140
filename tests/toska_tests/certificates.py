"""Certificates made for a test: an authority, and what it signs."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from toska_common.clock import now_utc

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key in files."""

    certificate: Path
    key: Path
    serial: int

    def words(self) -> dict[str, str]:
        """As a routing document names them."""
        return {"certificate": str(self.certificate), "key": str(self.key)}


class Authority:
    """A certificate authority with a folder to keep things in."""

    def __init__(self, folder: Path, name: str = "Test Authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public = self._key.public_key()
        certificate = (
            _builder(self._name, self._name, public, now_utc() - _DAY, now_utc() + 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name.replace(' ', '-').lower()}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, file: str, *names: str, since: datetime.datetime | None = None, until: datetime.datetime | None = None
    ) -> Pair:
        """A certificate for these DNS names and IP addresses, in `file.pem` and `file.key`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else file)])
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(
            subject, self._name, key.public_key(), since or now_utc() - _DAY, until or now_utc() + 30 * _DAY
        ).add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        certificate = builder.sign(self._key, hashes.SHA256())
        (path := self._folder / f"{file}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (key_path := self._folder / f"{file}.key").write_bytes(_private(key))
        key_path.chmod(0o600)
        return Pair(path, key_path, certificate.serial_number)

    def client_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """A client that believes this authority, perhaps with a certificate of its own."""
        context = ssl.create_default_context(cafile=str(self.file))
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context

    def server_context(self, pair: Pair, *, clients: bool = False) -> ssl.SSLContext:
        """A server that shows `pair`, and perhaps asks for certificates of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        if clients:
            context.load_verify_locations(str(self.file))
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def with_passphrase(pair: Pair) -> Path:
    """The pair's key, protected by a passphrase, in another file."""
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    path = pair.key.with_suffix(".locked.key")
    path.write_bytes(_private(key, serialization.BestAvailableEncryption(b"secret")))
    path.chmod(0o600)
    return path


def _private(
    key: ec.EllipticCurvePrivateKey, protection: serialization.KeySerializationEncryption | None = None
) -> bytes:
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, protection or serialization.NoEncryption())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    since: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
