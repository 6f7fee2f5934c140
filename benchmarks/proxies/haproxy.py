"""HAProxy; routes are looked up in a map, the form its manual recommends for many of them."""

from pathlib import Path

from benchmarks.parts import Program, get_program
from benchmarks.profiles import route_path
from benchmarks.proxies.setup import Proxy, Setup

_CONFIGURATION = """
global
    nbthread {workers}
    maxconn {connections}
    no strict-limits
defaults
    mode http
    timeout connect 2s
    timeout client 75s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 3600s
    http-reuse always
    option forwardfor
frontend edge
    bind 127.0.0.1:{port}{tls}
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Request-Id %[uuid()]
    use_backend %[path,map_beg({map})]
backend everybody
    balance roundrobin
{servers}
"""


def _command(program: Program, setup: Setup) -> list[str | Path]:
    routes = setup.folder / "routes.map"
    routes.write_text("".join(f"{route_path(route)}/ everybody\n" for route in range(setup.routes)))
    servers = "\n".join(f"    server s{port} 127.0.0.1:{port}" for port in setup.upstreams)
    file = setup.folder / "haproxy.cfg"
    file.write_text(
        _CONFIGURATION.format(
            port=setup.port,
            tls=f" ssl crt {setup.certificate.both}" if setup.certificate else "",
            map=routes,
            servers=servers,
            workers=setup.workers,
            connections=setup.room,
        )
    )
    return [program.path, "-db", "-f", file]


def _version(program: Program) -> str:
    return program.version("-v").split()[2].partition("-")[0]


HAPROXY = Proxy("haproxy", lambda: get_program("haproxy"), _version, _command)
