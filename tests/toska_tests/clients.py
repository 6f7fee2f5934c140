"""httpx for tests: clients that cost microseconds to open, and are patient on a busy machine."""

import re
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from toska_tests.waiting import PATIENT_S

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""httpx reads the machine's certificates for each client otherwise: 30 to 90 ms of a processor, in every poll."""


def http_client(**options: Any) -> httpx.AsyncClient:
    """A client for plain HTTP on this machine, which no proxy of the environment is asked for."""
    chosen: dict[str, Any] = {"timeout": PATIENT_S, "verify": NO_TLS, "trust_env": False, **options}
    return httpx.AsyncClient(**chosen)


async def scraped(url: str, name: str, *, headers: Mapping[str, str] | None = None) -> float:
    """The value of a metric without labels at `url`; 0 before its first one."""
    async with http_client() as http:
        text = (await http.get(url, headers=headers)).raise_for_status().text
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0
