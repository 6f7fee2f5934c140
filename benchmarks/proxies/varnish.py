"""Varnish: as a cache in memory, in front of the same upstream."""

from pathlib import Path

from benchmarks.parts import Program, get_program
from benchmarks.proxies.setup import Proxy, Setup

_VCL = """vcl 4.1;
backend upstream {{ .host = "127.0.0.1"; .port = "{port}"; }}
"""


def _command(program: Program, setup: Setup) -> list[str | Path]:
    file = setup.folder / "default.vcl"
    file.write_text(_VCL.format(port=setup.upstreams[0]))
    # One pool of threads, as all have one core; its sandbox would need a user of its own.
    options = ("thread_pools=1", "thread_pool_min=50", "thread_pool_max=2000", "workspace_client=64k")
    return [
        *(program.path, "-F", "-j", "none", "-n", setup.folder / "work", "-f", file, "-s", "malloc,64m"),
        *("-a", f"127.0.0.1:{setup.port}", "-T", "none"),
        *(word for option in options for word in ("-p", option)),
    ]


def _version(program: Program) -> str:
    return program.version("-V").partition("varnish-")[2].partition(" ")[0]


VARNISH = Proxy("varnish", lambda: get_program("varnishd"), _version, _command)
