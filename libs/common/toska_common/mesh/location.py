"""Which registry an app belongs to: said by the environment, or found in the `mesh.json` of a mesh on this machine."""

from dataclasses import dataclass, field
from pathlib import Path

from toska_common.clients.registry_tls import RegistryTls
from toska_common.credentials import read_token
from toska_common.errors import ConfigurationError
from toska_common.mesh.settings import MeshSettings
from toska_common.meshfile import DEFAULT_REGISTRY_URL, MeshFile, find_mesh
from toska_common.settings import registry_http_url


@dataclass(frozen=True, slots=True)
class Location:
    """A registry, and the terms on which this app talks to it.

    Attributes:
        url: Base URL of its HTTP API.
        token: Credential to register with; empty if none is known.
        expose_by_default: Whether this mesh gives routes to apps that do not say.
        home: State folder of the mesh, if it runs on this machine.
        tls: For a registry with TLS.
    """

    url: str
    token: str = field(default="", repr=False)
    expose_by_default: bool = False
    home: Path | None = None
    tls: RegistryTls = field(default_factory=RegistryTls)


def locate(settings: MeshSettings, start: Path | None = None) -> Location:
    """Find the registry, anew at each call: a mesh may be started after its apps, or move."""
    mesh = find_mesh(start)
    local_url = mesh.urls.get("registry") if mesh is not None else None
    url = registry_http_url(settings.registry_url or "embedded://", embedded=local_url or DEFAULT_REGISTRY_URL)
    # Another registry than the one beside the file must get neither its credential nor its habits.
    ours = mesh if url == local_url else None
    return Location(
        url=url,
        token=_find_token(settings, ours),
        expose_by_default=ours is not None and ours.expose_by_default,
        home=None if ours is None else ours.home,
        tls=RegistryTls(settings.registry_ca, settings.registry_certificate, settings.registry_key),
    )


def _find_token(settings: MeshSettings, mesh: MeshFile | None) -> str:
    given = settings.join_token.get_secret_value()
    if given:
        return given
    path = settings.join_token_file or (None if mesh is None else mesh.home / "join.token")
    try:
        return "" if path is None else read_token(path)
    except ConfigurationError:
        # Missing now, perhaps there at the next attempt; until then the registry's own refusal is what gets logged.
        return ""
