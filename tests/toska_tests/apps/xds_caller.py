"""Calls `/echo/Who` of a gRPC target again and again, and prints an answer whenever it is another one.

Usage: xds_caller.py TARGET [COUNT [NAME=VALUE]]; `GRPC_XDS_BOOTSTRAP` says where the xDS server is. With a count it
prints instead who has answered how many of so many calls in a row; NAME=VALUE is metadata of each.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc

made: Any = grpc


def main() -> None:
    """Call until killed."""
    metadata = tuple(tuple(word.split("=", 1)) for word in sys.argv[3:])
    with made.insecure_channel(sys.argv[1]) as channel:
        call = channel.unary_unary("/echo/Who")

        def ask(wait: bool) -> str:
            try:
                return call(b"", timeout=10, wait_for_ready=wait, metadata=metadata).decode()
            except grpc.RpcError as error:
                return f"failed {error}"

        if len(sys.argv) > 2:
            count(ask, int(sys.argv[2]))
        else:
            follow(ask)


def follow(ask: Callable[[bool], str]) -> None:
    """Print each answer that is another than the one before."""
    last = ""
    while True:
        answer = ask(not last)
        if answer != last:
            last = answer
            print(answer, flush=True)
        time.sleep(0.02)


def count(ask: Callable[[bool], str], calls: int) -> None:
    """Print who has answered how many of so many calls, again and again."""
    while True:
        print(json.dumps(Counter(ask(True) for _ in range(calls))), flush=True)


if __name__ == "__main__":
    main()
