"""httpx for tests: clients that cost microseconds to open, and are patient on a busy machine."""

import ssl
from typing import Any

import httpx

from toska_tests.waiting import PATIENT_S

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""httpx reads the machine's certificates for each client otherwise: 30 to 90 ms of a processor, in every poll."""


def http_client(**options: Any) -> httpx.AsyncClient:
    """A client for plain HTTP on this machine, which no proxy of the environment is asked for."""
    chosen: dict[str, Any] = {"timeout": PATIENT_S, "verify": NO_TLS, "trust_env": False, **options}
    return httpx.AsyncClient(**chosen)
