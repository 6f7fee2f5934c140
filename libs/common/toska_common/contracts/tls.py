"""How listeners and clusters speak TLS, in the words of routing.

Paths name PEM files on the gateway's machine; a relative one is looked up in the gateway's own folder (that of its
routing file, or `TOSKA_GATEWAY_TLS_FOLDER`). Nothing but paths travels in a snapshot.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import Host

TlsVersion = Literal["1.2", "1.3"]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f]+$")]


def _server_name(value: str) -> str:
    name = value[2:] if value.startswith("*.") else value
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", name):
        raise ValueError("a server name is lower-case, without a port; *.example.com stands for one label more")
    return value


ServerName = Annotated[str, AfterValidator(_server_name)]


class CertificatePair(Document):
    """A certificate with what belongs to it."""

    certificate: FileName = Field(description="PEM file: the certificate, then its intermediates")
    key: FileName = Field(description="PEM file: its private key, without a passphrase")
    names: tuple[ServerName, ...] = Field(
        default=(), description="Server names that it is shown for; default: those that it is made out for"
    )


class ClientCertificates(Document):
    """Who may connect: clients with a certificate of one of these authorities."""

    ca: FileName = Field(description="PEM file: the authorities that sign clients' certificates")
    mode: Literal["require", "optional"] = Field(
        default="require", description="optional: a client may come without one, but not with a wrong one"
    )


class ServerTls(Document):
    """TLS towards clients. A certificate is chosen by the name that the client asks for."""

    certificate: FileName | None = Field(default=None, description="The first certificate, and `key` its key")
    key: FileName | None = None
    certificates: tuple[CertificatePair, ...] = Field(default=(), description="Further ones; the first is the default")
    min_version: TlsVersion = "1.2"
    unknown_names: Literal["default", "refuse"] = Field(
        default="default", description="What a client gets that asks for a name of no certificate, or for none"
    )
    client: ClientCertificates | None = Field(default=None, description="Ask clients for certificates (mTLS)")

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both")
        if self.certificate is None and not self.certificates:
            raise ValueError("give certificate and key, or a list of certificates")
        return self

    @property
    def pairs(self) -> tuple[tuple[tuple[str | int, ...], CertificatePair], ...]:
        """All certificates, the default one first, each with its location below `server.tls`."""
        listed = tuple((("certificates", index), pair) for index, pair in enumerate(self.certificates))
        if self.certificate is None or self.key is None:
            return listed
        return (((), CertificatePair(certificate=self.certificate, key=self.key)), *listed)


class ClusterTls(Document):
    """TLS towards endpoints: whom to believe, and what to show."""

    ca: FileName | None = Field(default=None, description="PEM file of authorities; default: the system's")
    certificate: FileName | None = Field(default=None, description="Shown to endpoints that ask for one (mTLS)")
    key: FileName | None = None
    server_name: Host | None = Field(
        default=None, description="Asked for (SNI) and verified; default: the endpoint's address as it is written"
    )
    min_version: TlsVersion = "1.2"
    insecure: bool = Field(default=False, description="Believe any certificate: encrypted, and open to impostors")

    @field_validator("server_name")
    @classmethod
    def _lower(cls, value: str | None) -> str | None:
        return None if value is None else value.lower()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both")
        if self.insecure and self.ca is not None:
            raise ValueError("insecure verifies nothing, so ca would mean nothing: give one of them")
        return self
