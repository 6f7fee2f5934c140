"""What can be said of a check's address before anybody resolves or connects to anything."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from toska_common.targets import TargetRules

from toska_discovery.check import CheckKind, Probe
from toska_discovery.probing.dialling import BadTarget, split_address


def literal_refusal(kind: CheckKind, probe: Probe, rules: TargetRules) -> str | None:
    """Why a check must not be registered; `None` also for a name, and for what the probe will find to be no address."""
    address = _address(kind, probe)
    if address is None:
        return None
    host, port = address
    try:
        return rules.refusal(str(ip_address("127.0.0.1" if host == "localhost" else host)), port)
    except ValueError:
        return None


def _address(kind: CheckKind, probe: Probe) -> tuple[str, int] | None:
    try:
        if kind is CheckKind.HTTP:
            parts = urlsplit(probe.target)
            return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        if kind in {CheckKind.TCP, CheckKind.GRPC}:
            return split_address(probe.target.partition("/")[0])
    except (BadTarget, ValueError):
        return None
    return None
