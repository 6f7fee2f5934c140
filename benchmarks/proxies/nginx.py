"""nginx: as a proxy with kept upstream connections, and as the upstream of everybody."""

import os
import tempfile
from pathlib import Path

from benchmarks.parts import Program, get_program
from benchmarks.profiles import BODY, CONTENT_TYPE, Profile, route_path
from benchmarks.proxies.certificate import Certificate
from benchmarks.proxies.setup import Proxy, Setup

STATUS_PATH = "/upstream-status"
_MEMORY = Path("/dev/shm")  # noqa: S108 - for files that nobody else is to read or guess
_UPSTREAM_CONNECTIONS = 4096

_FRAME = """
daemon off;
{user}
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{servers}
}}
"""

_PROXY = """
    upstream everybody {{ {servers} keepalive {connections}; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port}{shared}{tls};
        {certificate}
        {buffering}
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Request-Id $request_id;
{locations}
    }}
{cache}
"""

# With its default of a page or two, nginx would take three times as long for what it does not collect.
_UNBUFFERED = "proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"


def upstream_command(program: Program, folder: Path, ports: tuple[int, ...], profile: Profile) -> list[str | Path]:
    """The upstream: the profile's body for every path, and a counter of the requests that reached it."""
    headers = "\n".join(f"        add_header {name} '{value}';" for name, value in profile.response_headers)
    listens = " ".join(f"listen 127.0.0.1:{port};" for port in ports)
    answer = f"default_type {CONTENT_TYPE}; {_answer(folder, profile.body)}"
    server = (
        f"    server {{\n        {listens}\n{headers}\n"
        f"        location / {{ {answer} }}\n        location = {STATUS_PATH} {{ stub_status; }}\n    }}"
    )
    return _run(program, folder, server)


def _answer(folder: Path, body: bytes) -> str:
    if body == BODY:
        return f"return 200 '{BODY.decode()}';"
    file = folder / "www" / "body"
    file.parent.mkdir()
    file.write_bytes(body)
    return f"root {file.parent}; sendfile on; etag off; if_modified_since off; rewrite ^ /body break;"


def _command(program: Program, setup: Setup) -> list[str | Path]:
    servers = " ".join(f"server 127.0.0.1:{port};" for port in setup.upstreams)
    locations = "\n".join(
        f"        location {route_path(route)}/ {{ proxy_pass http://everybody; }}" for route in range(setup.routes)
    )
    proxy = _PROXY.format(
        servers=servers,
        port=setup.port,
        shared=" reuseport" if setup.workers > 1 else "",
        tls=" ssl" if setup.certificate else "",
        certificate=_certificate(setup.certificate),
        buffering=_UNBUFFERED if setup.streaming else "",
        connections=setup.room,
        locations=locations,
        cache=_cache(setup) if setup.caching else "",
    )
    # A connection to the upstream is one of nginx's own connections as well.
    return _run(program, setup.folder, proxy, setup.workers, 2 * setup.room)


def _cache(setup: Setup) -> str:
    # Files in memory, so that it is not a disk that is measured; which of them are there is in shared memory anyway.
    folder = Path(tempfile.mkdtemp(prefix="nginx-", dir=_MEMORY if _MEMORY.is_dir() else setup.folder))
    return (
        f"    proxy_cache_path {folder} levels=1:2 keys_zone=kept:16m max_size=64m inactive=1h use_temp_path=off;\n"
        "    proxy_cache kept; proxy_cache_lock on; add_header X-Cache $upstream_cache_status;"
    )


def _certificate(pair: Certificate | None) -> str:
    return "" if pair is None else f"ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key};"


def _run(
    program: Program, folder: Path, servers: str, workers: int = 1, connections: int = _UPSTREAM_CONNECTIONS
) -> list[str | Path]:
    file = folder / "nginx.conf"
    # Started by root it would become nobody, who may not look into a temporary folder.
    user = "" if os.geteuid() else "user root;"
    file.write_text(_FRAME.format(user=user, folder=folder, servers=servers, workers=workers, connections=connections))
    return [program.path, "-e", "stderr", "-p", folder, "-c", file]


def _version(program: Program) -> str:
    return program.version("-v").rpartition("/")[2]


NGINX = Proxy("nginx", lambda: get_program("nginx"), _version, _command)
