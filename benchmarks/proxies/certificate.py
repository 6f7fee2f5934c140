"""A certificate for a bench: the key that most of the web has by now, signed by itself."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from toska_common.clock import now_utc


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files: the certificate, its key, and both in one."""

    certificate: Path
    key: Path
    both: Path


def make_certificate(folder: Path) -> Certificate:
    """A certificate for localhost and a key on P-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now_utc())
    builder = builder.not_valid_after(now_utc() + datetime.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    chain = signed.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = Certificate(folder / "edge.pem", folder / "edge.key", folder / "both.pem")
    for file, content in ((files.certificate, chain), (files.key, private), (files.both, chain + private)):
        file.touch(mode=0o600)
        file.write_bytes(content)
    return files
