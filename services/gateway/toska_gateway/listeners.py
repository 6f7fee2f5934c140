"""Where the data plane takes requests, as operators write it.

    127.0.0.1:8080                   TLS if the routing has `server.tls`, else plain
    https://0.0.0.0:8443             TLS
    http://0.0.0.0:80?redirect=8443  plain; sends everybody to HTTPS on that port
    unix:/run/toska.sock?mode=0660   a Unix socket, plain, with these permissions

`?http3=on` on https:// serves HTTP/3 on the UDP port of the same number, too; that needs Envoy (`--engine envoy`).

`?proxy_protocol=on` or `=off` overrides for one listener whether connections begin with a PROXY header: on TCP the
routing's `server.proxy_protocol` says so, and on a Unix socket they do not.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from toska_common.contracts.names import MAX_UNIX_PATH, UNIX_PREFIX
from toska_common.security import is_loopback

_TCP = re.compile(r"(?:(https?)://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_MODE = re.compile(r"0?[0-7]{3}")
_SWITCH = {"on": True, "off": False}
_DEFAULT_MODE = 0o600


@dataclass(frozen=True, slots=True)
class ListenerAddress:
    """One listener. `tls` and `proxy_protocol` are `None` where the routing decides; `redirect` 0 is none."""

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool | None = None
    proxy_protocol: bool | None = None
    http3: bool = False
    redirect: int = 0
    mode: int = _DEFAULT_MODE

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return bool(self.path) or is_loopback(self.host)

    def spec(self) -> dict[str, Any]:
        """What a worker has to know of it."""
        unix = bool(self.path)
        proxied = False if unix and self.proxy_protocol is None else self.proxy_protocol
        tls = False if unix or self.redirect else self.tls
        return {"tls": tls, "proxy_protocol": proxied, "redirect": self.redirect, "unix": unix}

    def url(self, port: int, *, tls: bool) -> str:
        """Where clients find it, bound to `port`, when the routing has `server.tls` or has not."""
        if self.path:
            return UNIX_PREFIX + self.path
        scheme = "https" if self.spec()["tls"] is True or (self.spec()["tls"] is None and tls) else "http"
        return f"{scheme}://[{self.host}]:{port}" if ":" in self.host else f"{scheme}://{self.host}:{port}"


def parse_listener(text: str) -> ListenerAddress:
    """Read one listener.

    Raises:
        ValueError: Says what is wrong with it.
    """
    place, _, query = text.partition("?")
    options = _options(query)
    if place.startswith(UNIX_PREFIX):
        return _unix(place.removeprefix(UNIX_PREFIX), options)
    match = _TCP.fullmatch(place)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r}: write host:port, http://host:port, https://host:port or unix:/path")
    if "mode" in options:
        raise ValueError(f"{text!r}: mode is for Unix sockets")
    tls = {"http": False, "https": True}.get(match[1] or "")
    redirect = 0
    if "redirect" in options:
        redirect = _redirect(text, options["redirect"], plain=tls is False)
    return ListenerAddress(
        match[2].strip("[]"),
        int(match[3]),
        tls=tls,
        proxy_protocol=_proxied(options),
        redirect=redirect,
        http3=_http3(text, options, tls=tls is True),
    )


def _unix(path: str, options: dict[str, str]) -> ListenerAddress:
    if not path.startswith("/"):
        raise ValueError(f"unix:{path}: write the absolute path of the socket")
    if len(path.encode()) > MAX_UNIX_PATH:
        raise ValueError(f"unix:{path}: the path of a Unix socket has at most {MAX_UNIX_PATH} bytes")
    if "redirect" in options:
        raise ValueError(f"unix:{path}: redirect is for listeners on http://")
    if "http3" in options:
        raise ValueError(f"unix:{path}: http3 is for listeners on https://")
    mode = options.get("mode", f"{_DEFAULT_MODE:04o}")
    if not _MODE.fullmatch(mode):
        raise ValueError(f"mode={mode}: write the permissions in octal, such as 0660")
    return ListenerAddress(path=path, mode=int(mode, 8), proxy_protocol=_proxied(options))


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in {"http3", "mode", "proxy_protocol", "redirect"}:
            raise ValueError(f"{name!r} is no option of a listener; there are http3, mode, proxy_protocol and redirect")
        if name in options:
            raise ValueError(f"{name} stands twice")
        options[name] = value
    return options


def _proxied(options: dict[str, str]) -> bool | None:
    value = options.get("proxy_protocol")
    if value is None:
        return None
    if value not in _SWITCH:
        raise ValueError(f"proxy_protocol={value}: write on or off")
    return _SWITCH[value]


def _http3(text: str, options: dict[str, str], *, tls: bool) -> bool:
    value = options.get("http3", "off")
    if value not in _SWITCH:
        raise ValueError(f"http3={value}: write on or off")
    if _SWITCH[value] and not tls:
        raise ValueError(f"{text!r}: http3 is for listeners on https://")
    return _SWITCH[value]


def _redirect(text: str, port: str, *, plain: bool) -> int:
    if not plain:
        raise ValueError(f"{text!r}: redirect is for listeners on http://")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"redirect={port}: write the port of HTTPS, such as 443")
    return int(port)
