"""nginx: as a proxy with kept upstream connections, and as the upstream of everybody."""

from pathlib import Path

from benchmarks.parts import Program, get_program
from benchmarks.profiles import BODY, CONTENT_TYPE, Profile, route_path
from benchmarks.proxies.setup import Proxy, Setup

STATUS_PATH = "/upstream-status"

_FRAME = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
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
    upstream everybody {{ {servers} keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Request-Id $request_id;
{locations}
    }}
"""


def upstream_command(program: Program, folder: Path, ports: tuple[int, ...], profile: Profile) -> list[str | Path]:
    """The upstream: 60 bytes of JSON for every path, and a counter of the requests that reached it."""
    headers = "\n".join(f"        add_header {name} '{value}';" for name, value in profile.response_headers)
    listens = " ".join(f"listen 127.0.0.1:{port};" for port in ports)
    answer = f"default_type {CONTENT_TYPE}; return 200 '{BODY.decode()}';"
    server = (
        f"    server {{\n        {listens}\n{headers}\n"
        f"        location / {{ {answer} }}\n        location = {STATUS_PATH} {{ stub_status; }}\n    }}"
    )
    return _run(program, folder, server)


def _command(program: Program, setup: Setup) -> list[str | Path]:
    servers = " ".join(f"server 127.0.0.1:{port};" for port in setup.upstreams)
    locations = "\n".join(
        f"        location {route_path(route)}/ {{ proxy_pass http://everybody; }}" for route in range(setup.routes)
    )
    return _run(program, setup.folder, _PROXY.format(servers=servers, port=setup.port, locations=locations))


def _run(program: Program, folder: Path, servers: str) -> list[str | Path]:
    file = folder / "nginx.conf"
    file.write_text(_FRAME.format(folder=folder, servers=servers))
    return [program.path, "-e", "stderr", "-p", folder, "-c", file]


def _version(program: Program) -> str:
    return program.version("-v").rpartition("/")[2]


NGINX = Proxy("nginx", lambda: get_program("nginx"), _version, _command)
