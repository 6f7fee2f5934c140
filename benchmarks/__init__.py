"""Every figure that the README and `docs/performance.md` quote, measured beside its peers in one run.

`python -m benchmarks` compares the gateway's data plane with nginx, haproxy and Envoy; `python -m benchmarks -h` names
the others. Nothing in here is imported by the mesh.
"""


class BenchError(Exception):
    """A figure could not be had, or could not be trusted; the message says why."""
