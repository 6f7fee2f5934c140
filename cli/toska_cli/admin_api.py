"""The management API of a gateway, of the router or of another service, as commands ask it."""

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from toska_common.errors import ConfigurationError, MeshError

from toska_cli.running import get_home, get_running_mesh

_SILENCE_S = 60.0
"""A stream has a sign of life every 15 s."""


class AdminApi:
    """One gateway's admin API, or the router's.

    Args:
        url: Where it is.
        token: The mesh's admin token.
        what: Whose it is, for errors.
    """

    def __init__(self, url: str, token: str, what: str = "the gateway's admin API") -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigurationError(f"{url}: write the URL of {what}, such as http://127.0.0.1:8100")
        self.url = url
        self._what = what
        self._host, self._port = parts.hostname, parts.port
        self._headers = {"authorization": f"Bearer {token}"}

    @classmethod
    def find(cls, url: str | None, home: Path | None, what: str = "the gateway's admin API") -> "AdminApi":
        """The one on `url`, or that of the gateway of the mesh that runs here; the token is that of `home`.

        Raises:
            ConfigurationError: There is no such gateway, or no token for it.
        """
        if url is None:
            mesh = get_running_mesh(home)
            url, home = mesh.urls["gateway_admin"], mesh.home
        file = get_home(home) / "admin.token"
        try:
            return cls(url, file.read_text(encoding="ascii").strip(), what)
        except OSError as error:
            raise ConfigurationError(f"cannot read the admin token {file}: {error.strerror}") from error

    @classmethod
    def find_router(cls, url: str | None, home: Path | None) -> "AdminApi":
        """The router on `url`, or that of the mesh that runs here.

        Raises:
            ConfigurationError: No mesh runs there, or there is no token for it.
        """
        if url is None:
            mesh = get_running_mesh(home)
            url, home = mesh.urls["router"], mesh.home
        return cls.find(url, home, what="the router's API")

    def get(self, path: str, *, patience_s: float = 10.0) -> Any:
        """Fetch JSON.

        Raises:
            MeshError: It refused, or does not answer.
        """
        return self._ask("GET", path, None, patience_s)

    def post(self, path: str, body: object = None, *, patience_s: float = 10.0) -> Any:
        """Post JSON, or nothing; returns the answer's.

        Raises:
            MeshError: It refused, or does not answer.
        """
        return self._ask("POST", path, body, patience_s)

    def stream(self, path: str) -> Iterator[str]:
        """The lines of an answer that does not end.

        Raises:
            MeshError: It refused, ended the answer, or does not answer.
        """
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_SILENCE_S)
        try:
            connection.request("GET", path, headers={**self._headers, "accept": "text/event-stream"})
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise MeshError(f"{self._what} refused: {_reason(json.loads(response.read()), response.status)}")
            while line := response.readline():
                yield line.decode().rstrip("\r\n")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MeshError(f"{self._what} on {self.url} does not answer: {error}") from error
        finally:
            connection.close()
        raise MeshError(f"{self._what} on {self.url} has stopped")

    def post_text(self, path: str, text: bytes, media_type: str, *, headers: Mapping[str, str]) -> Any:
        """Post a text as it is; returns the answer's JSON.

        Raises:
            MeshError: It refused, or does not answer.
        """
        return self._send("POST", path, text, {**headers, "content-type": media_type}, patience_s=60)

    def _ask(self, method: str, path: str, body: object, patience_s: float) -> Any:
        if body is None:
            return self._send(method, path, None, {}, patience_s)
        return self._send(method, path, json.dumps(body).encode(), {"content-type": "application/json"}, patience_s)

    def _send(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], patience_s: float) -> Any:
        headers = {**headers, **self._headers}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=patience_s)
        try:
            connection.request(method, path, body=data, headers=headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MeshError(f"{self._what} on {self.url} does not answer: {error}") from error
        finally:
            connection.close()
        if response.status not in (http.client.OK, http.client.CREATED, http.client.ACCEPTED):
            raise MeshError(f"{self._what} refused: {_reason(answer, response.status)}")
        return answer


def _reason(answer: Any, status: int) -> str:
    if not isinstance(answer, dict):
        return str(status)
    problem = cast("dict[str, Any]", answer)
    return "; ".join(map(_said, problem.get("problems") or ())) or str(problem.get("detail", status))


def _said(item: Mapping[str, Any]) -> str:
    line = f"line {item['line']}" if item.get("line") else ""
    return ": ".join(str(part) for part in (line, item.get("field"), item.get("reason")) if part)
