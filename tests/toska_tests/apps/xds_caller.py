"""Calls `/echo/Who` of a gRPC target again and again, and prints an answer whenever it is another one.

Usage: xds_caller.py TARGET; `GRPC_XDS_BOOTSTRAP` says where the xDS server is.
"""

import sys
import time
from typing import Any

import grpc

made: Any = grpc


def main() -> None:
    """Call until killed."""
    last = b""
    with made.insecure_channel(sys.argv[1]) as channel:
        ask = channel.unary_unary("/echo/Who")
        while True:
            try:
                answer: bytes = ask(b"", timeout=10, wait_for_ready=not last)
            except grpc.RpcError as error:
                answer = f"failed {error}".encode()
            if answer != last:
                last = answer
                print(answer.decode(), flush=True)
            time.sleep(0.02)


if __name__ == "__main__":
    main()
