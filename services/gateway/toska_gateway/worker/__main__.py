"""`python -m toska_gateway.worker CONTROL_FD LISTEN_FD…`; started by the supervisor, not by hand."""

import sys

from toska_gateway.worker.process import main

main(*map(int, sys.argv[1:]))
