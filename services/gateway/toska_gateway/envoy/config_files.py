"""The files that Envoy watches: each is replaced as a whole, so that Envoy never reads a part of one."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from toska_common.envoy.options import SourceKind

from toska_gateway.envoy.bootstrap import source

Json = Mapping[str, Any]
_LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


class ConfigFiles:
    """One folder of them. Every write returns the version that Envoy will tell once it has accepted it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._serial = itertools.count(1)
        for name in ("routes", "endpoints"):
            (folder / name).mkdir(exist_ok=True)

    def source(self, kind: SourceKind, name: str) -> dict[str, Any]:
        """Where Envoy finds a resource that another one names."""
        return source(self._path(kind, name))

    def write_listeners(self, listeners: Mapping[str, Json]) -> str:
        """All listeners."""
        return self._write(self.folder / "listeners.json", _LISTENER, listeners.values())

    def write_clusters(self, clusters: Mapping[str, Json]) -> str:
        """All clusters."""
        return self._write(self.folder / "clusters.json", _CLUSTER, clusters.values())

    def write_routes(self, name: str, routes: Json) -> str:
        """One route configuration."""
        return self._write(self._path("routes", name), _ROUTES, [routes])

    def write_endpoints(self, name: str, assignment: Json) -> str:
        """The endpoints of one cluster."""
        return self._write(self._path("endpoints", name), _ENDPOINTS, [assignment])

    def remove(self, kind: SourceKind, name: str) -> None:
        """Take a file away that nothing names any more."""
        self._path(kind, name).unlink(missing_ok=True)

    def _path(self, kind: SourceKind, name: str) -> Path:
        return self.folder / kind / f"{quote(name, safe='')}.json"

    def _write(self, path: Path, kind: str, resources: Any) -> str:
        listed = [{"@type": kind, **resource} for resource in resources]
        content = json.dumps(listed)
        version = f"{next(self._serial)}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        beside = path.with_suffix(".new")
        beside.write_text(f'{{"version_info": "{version}", "resources": {content}}}')
        beside.replace(path)
        return version
