"""Checks, from the bodies of registrations to the domain's values.

What this registry does not run is refused and never ignored: who registers must be able to trust what was acknowledged.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from toska_common.contracts.discovery import Health

from toska_discovery.check import OUTPUT_MAX_BYTES, CheckDefinition, CheckKind, Probe
from toska_discovery.consul.gojson import (
    Struct,
    boolean,
    decode_json,
    duration,
    integer,
    mismatch,
    string,
    string_lists,
    strings,
)
from toska_discovery.consul.request import Refusal
from toska_discovery.consul.rules import ID_MAX, NAME_MAX, NOTES_MAX, RegistrationRules, bound
from toska_discovery.probing.literals import literal_refusal
from toska_discovery.probing.script import DISABLED

REMOVAL_FLOOR_S = 60.0
"""Least `DeregisterCriticalServiceAfter`; Consul raises shorter ones to it."""
INTERVAL_FLOOR_S = 1.0
"""Least interval of a probe; likewise."""
TIMEOUT_S, SCRIPT_TIMEOUT_S = 10.0, 30.0
"""How long a probe may take that does not say, and a script."""
CHECKS_MAX = 16
"""Checks of one instance, and of a node."""

# Go's decoder writes the struct's own tag; both JSON names of a field, such as ScriptArgs and Args, mean the same.
_CHECK = Struct.of(
    ID=string, CheckID=string, Name=string, Status=string, Notes=string, TTL=duration, Interval=duration,
    Timeout=duration, DeregisterCriticalServiceAfter=duration, ServiceID=string, OutputMaxSize=integer,
    SuccessBeforePassing=integer, FailuresBeforeWarning=integer, FailuresBeforeCritical=integer,
    Args=strings, ScriptArgs=strings, HTTP=string, Header=string_lists, Method=string, Body=string,
    TCP=string, TCPUseTLS=boolean, UDP=string, GRPC=string, GRPCUseTLS=boolean, H2PING=string, H2PingUseTLS=boolean,
    OSService=string, AliasNode=string, AliasService=string, DockerContainerID=string, Shell=string,
    TLSServerName=string, TLSSkipVerify=boolean, ProxyHTTP=string, ProxyGRPC=string, Namespace=string,
    Partition=string, DisableRedirects=boolean, Token=string,
)  # fmt: skip

# Of later Consuls, or of what this registry is not; honoured by nobody here, so they must be empty.
_UNSUPPORTED = (
    "UDP", "H2PING", "H2PingUseTLS", "OSService", "DockerContainerID", "TCPUseTLS", "TLSServerName", "ProxyHTTP",
    "ProxyGRPC", "DisableRedirects", "FailuresBeforeWarning",
)  # fmt: skip

_KINDS = {
    CheckKind.GRPC: ("GRPC",),
    CheckKind.HTTP: ("HTTP",),
    CheckKind.TCP: ("TCP",),
    CheckKind.SCRIPT: ("Args", "ScriptArgs"),
    CheckKind.ALIAS: ("AliasService", "AliasNode"),
}
"""The fields that make a check one of a kind; where several do, the first does, as in Consul."""

_STATUSES = {status.value: status for status in Health}


def decode_checks(
    fields: Mapping[str, Any], service_id: str, service_name: str, rules: RegistrationRules
) -> list[CheckDefinition]:
    """Read `Check` and `Checks` of a service's registration.

    Raises:
        Refusal: What is wrong, in Consul's words where Consul has some.
    """
    several: Any = fields.get("Checks", [])
    if not isinstance(several, list):
        raise mismatch(several, "Checks", "structs.CheckTypes")
    bodies = [_CHECK.decode(fields.get("Check", {})), *(_CHECK.decode(part) for part in cast("list[Any]", several))]
    # Nothing asked for is nothing wrong: clients send an empty Check along.
    bodies = [body for body in bodies if any(value not in ("", 0, False, (), {}, []) for value in body.values())]
    if len(bodies) > CHECKS_MAX:
        raise Refusal(400, f"Invalid check: a service cannot have more than {CHECKS_MAX} checks")
    checks: dict[str, CheckDefinition] = {}
    for number, body in enumerate(bodies, start=1):
        own_id = f"service:{service_id}" if len(bodies) == 1 else f"service:{service_id}:{number}"
        if body.get("Status") and body["Status"] not in _STATUSES:
            raise Refusal(400, "Status for checks must 'passing', 'warning', 'critical'")
        check = _build(body, own_id, f"Service '{service_name}' check", rules, of_service=True)
        checks[check.id] = check
    return list(checks.values())


def decode_check(body: bytes, rules: RegistrationRules) -> tuple[CheckDefinition, str | None]:
    """Read the body of `agent/check/register`: a check, and the id of its instance if it is not the node's.

    Raises:
        Refusal: What is wrong, in Consul's words where Consul has some.
    """
    fields = _CHECK.decode(decode_json(body))
    name = fields.get("Name", "")
    if not name:
        raise Refusal(400, "Missing check name")
    if fields.get("Status") and fields["Status"] not in _STATUSES:
        raise Refusal(400, "Bad check status")
    service_id = fields.get("ServiceID") or None
    return _build(fields, name, name, rules, of_service=service_id is not None), service_id


def _build(
    body: Mapping[str, Any], own_id: str, own_name: str, rules: RegistrationRules, *, of_service: bool
) -> CheckDefinition:
    kind = next((kind for kind, names in _KINDS.items() if any(body.get(name) for name in names)), CheckKind.TTL)
    _check_times(body, kind)
    _check_supported(body, kind, rules)
    probe = None if kind is CheckKind.TTL else _probe(body, kind)
    refusal = None if probe is None else literal_refusal(kind, probe, rules.targets)
    if refusal is not None:
        raise Refusal(400, f"Invalid check: {refusal}")
    check_id = body.get("CheckID") or body.get("ID") or own_id
    bound("check ID", check_id, ID_MAX)
    notes = body.get("Notes", "")
    if len(notes) > NOTES_MAX:
        raise Refusal(400, f"Invalid check: Notes is too long (limit: {NOTES_MAX} characters)")
    name = body.get("Name") or own_name
    bound("check name", name, NAME_MAX + 20)
    removal = body.get("DeregisterCriticalServiceAfter", 0.0)
    # Who stopped renewing will not come back under this registration; who is probed may get well again, as in Consul.
    own_removal_s = rules.removal_after_s if kind is CheckKind.TTL else None
    removal_after_s = max(removal, REMOVAL_FLOOR_S) if removal > 0 else own_removal_s
    return CheckDefinition(
        id=check_id,
        name=name,
        ttl_s=body["TTL"] if kind is CheckKind.TTL else None,
        notes=notes,
        status=_STATUSES[body.get("Status") or Health.CRITICAL.value],
        removal_after_s=removal_after_s if of_service else None,
        kind=kind,
        probe=probe,
        output_max_bytes=min(body.get("OutputMaxSize", 0) or OUTPUT_MAX_BYTES, OUTPUT_MAX_BYTES),
    )


def _check_times(body: Mapping[str, Any], kind: CheckKind) -> None:
    """Refuse what does not go together, in the order and the words of Consul's `CheckType.Validate`."""
    ttl_s, interval_s = body.get("TTL", 0.0), body.get("Interval", 0.0)
    probed = kind not in {CheckKind.TTL, CheckKind.ALIAS}
    alias = any(body.get(name) for name in _KINDS[CheckKind.ALIAS])
    problem = None
    if interval_s > 0 and ttl_s > 0:
        problem = "Interval and TTL cannot both be specified"
    elif probed and interval_s <= 0:
        problem = "Interval must be > 0 for Script, HTTP, or TCP checks"
    elif probed and alias:
        problem = "Interval cannot be set for Alias checks"
    elif alias and ttl_s > 0:
        problem = "TTL must be not be set for Alias checks"
    elif kind is CheckKind.TTL and ttl_s <= 0 and not any(body.get(name) for name in _UNSUPPORTED):
        problem = "TTL must be > 0 for TTL checks"
    elif body.get("OutputMaxSize", 0) < 0:
        problem = "MaxOutputMaxSize must be positive"
    if problem is not None:
        raise Refusal(400, f"Invalid check: {problem}")


def _check_supported(body: Mapping[str, Any], kind: CheckKind, rules: RegistrationRules) -> None:
    for name in _UNSUPPORTED:
        if body.get(name):
            raise Refusal(400, f"Invalid check: {name} is not supported by this registry")
    for name in ("Namespace", "Partition"):
        if body.get(name, "default") not in {"", "default"}:
            raise Refusal(400, f"Invalid check: {name} is not supported by this registry")
    if kind in rules.kinds:
        return
    if kind is CheckKind.SCRIPT:
        raise Refusal(500, DISABLED)
    raise Refusal(400, f"Invalid check: {kind.value} checks are not supported by this registry; use a TTL check")


def _probe(body: Mapping[str, Any], kind: CheckKind) -> Probe:
    targets = {CheckKind.HTTP: "HTTP", CheckKind.TCP: "TCP", CheckKind.GRPC: "GRPC", CheckKind.ALIAS: "AliasService"}
    timeout_s = SCRIPT_TIMEOUT_S if kind is CheckKind.SCRIPT else TIMEOUT_S
    args: Sequence[str] = body.get("Args") or body.get("ScriptArgs") or ()
    shell = body.get("Shell", "")
    if shell and args:
        args = (shell, "-c", " ".join(args))
    return Probe(
        target=body.get(targets.get(kind, ""), ""),
        interval_s=max(body.get("Interval", 0.0), INTERVAL_FLOOR_S),
        timeout_s=body["Timeout"] if body.get("Timeout", 0.0) > 0 else timeout_s,
        method=body.get("Method") or "GET",
        header=body.get("Header", {}),
        body=body.get("Body", ""),
        tls=body.get("GRPCUseTLS", False),
        tls_skip_verify=body.get("TLSSkipVerify", False),
        args=tuple(args),
        node=body.get("AliasNode", ""),
        success_before_passing=max(0, body.get("SuccessBeforePassing", 0)),
        failures_before_critical=max(0, body.get("FailuresBeforeCritical", 0)),
    )
