"""What stands in the registries: services of ten instances each, and the requests about them.

Consul's agent needs time for a registration that grows with what it holds itself (10,000 instances would take it
minutes), so only one instance of each of the first services belongs to the agent; the others come through the catalog,
as from other nodes. Writes are measured on the agent's own.
"""

import json
from collections.abc import Iterator

SERVICES = 1000
INSTANCES = 10
AGENT_HELD = 100
"""So many services have one instance registered with the agent itself: the ones that are written under load."""
WATCHED = "service-0000"

_AGENT_INSTANCE = INSTANCES - 1


def _filled(text: str, service: int) -> str:
    return text.replace("{route}", f"{service:04d}").replace("{n}", "0" * 16)


def _instance(number: int) -> dict[str, object]:
    # A port of five digits, as text: a number in the template would not be JSON before it is filled in.
    return {
        "ID": f"service-{{route}}-{number}",
        "Address": f"10.0.0.{number + 1}",
        "Port": "1{route}",
        "Tags": ["v1", "eu"],
        "Meta": {"version": "1.4.2", "revision": "{n}"},
    }


def _encode(body: dict[str, object]) -> str:
    return json.dumps(body).replace('"1{route}"', "1{route}")


_REGISTRATION = _encode(
    _instance(_AGENT_INSTANCE) | {"Name": "service-{route}", "Check": {"TTL": "3600s", "Status": "passing"}}
)


def registration(service: int, revision: int = 0) -> str:
    """Body for the agent: its own instance of this service."""
    return _filled(_REGISTRATION.replace("{n}", f"{revision:016x}"), service)


def agent_registrations() -> Iterator[str]:
    return (registration(service) for service in range(AGENT_HELD))


def other_registrations() -> Iterator[tuple[str, str]]:
    """All others, as bodies for the agent and for the catalog: a registry takes whichever suits it."""
    for service in range(SERVICES):
        for number in range(INSTANCES):
            if number == _AGENT_INSTANCE and service < AGENT_HELD:
                continue
            instance = _instance(number)
            check = {"TTL": "3600s", "Status": "passing"}
            for_agent = instance | {"Name": "service-{route}", "Check": check}
            for_catalog: dict[str, object] = {
                "Node": f"node-{number}",
                "Address": instance["Address"],
                "Service": instance | {"Service": "service-{route}"},
                "Check": {
                    "CheckID": f"service:{instance['ID']}",
                    "ServiceID": instance["ID"],
                    "Name": "Service check",
                    "Status": "passing",
                },
            }
            yield _filled(_encode(for_agent), service), _filled(_encode(for_catalog), service)


def lookup_path(service: str) -> str:
    return f"/v1/health/service/{service}?passing"


def lookup_request() -> str:
    """Instances of one service after the other (in the words of `load.lua`)."""
    return f"GET {lookup_path('service-{route}')} HTTP/1.1\r\nHost: localhost\r\n\r\n"


def registration_request(token: str) -> str:
    """An instance registered anew with other metadata: a real change, while the registry stays as large as it is."""
    length = len(_filled(_REGISTRATION, 0))
    head = (
        f"PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\n{_token(token)}Content-Type: application/json"
        f"\r\nContent-Length: {length}\r\n\r\n"
    )
    return head + _REGISTRATION


def renewal_request(token: str) -> str:
    """A TTL check that passes and passed before."""
    path = f"/v1/agent/check/pass/service:service-{{route}}-{_AGENT_INSTANCE}"
    return f"PUT {path} HTTP/1.1\r\nHost: localhost\r\n{_token(token)}Content-Length: 0\r\n\r\n"


def _token(token: str) -> str:
    return f"X-Consul-Token: {token}\r\n" if token else ""
