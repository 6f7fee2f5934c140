"""What Consul refuses, our registry refuses in the same words, and whatever it cannot honour besides."""

import uuid
from typing import Any

import pytest
from toska_tests.discovery_rig import ConsulPort

REGISTER = "agent/service/register"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Request decode failed: EOF"),
        (b"  \n", "Request decode failed: EOF"),
        (b"{", "Request decode failed: unexpected EOF"),
        (b'{"Name": "a', "Request decode failed: unexpected EOF"),
        (b'{"Name": "a"', "Request decode failed: unexpected EOF"),
        (b"x", "Request decode failed: invalid character 'x' looking for beginning of value"),
        (b'{"Name": "a",}', "Request decode failed: invalid character '}' looking for beginning of object key string"),
        (b"{}", "Missing service name"),
        (b'{"Name": ""}', "Missing service name"),
        (b'{"Name": null}', "Missing service name"),
        (b'{"Name": "a", "Bogus": 1}', 'Request decode failed: json: unknown field "Bogus"'),
        (
            b'{"Name": 5}',
            "Request decode failed: json: cannot unmarshal number into Go struct field .Name of type string",
        ),
        (
            b'{"Name": "a", "Port": "x"}',
            "Request decode failed: json: cannot unmarshal string into Go struct field .Port of type int",
        ),
        (
            b'{"Name": "a", "Port": 1.5}',
            "Request decode failed: json: cannot unmarshal number 1.5 into Go struct field .Port of type int",
        ),
        (
            b'{"Name": "a", "Tags": "x"}',
            "Request decode failed: json: cannot unmarshal string into Go struct field .Tags of type []string",
        ),
        (b'{"Name": "a", "Check": {"TTL": "zz"}}', 'Request decode failed: time: invalid duration "zz"'),
        (b'{"Name": "a", "Check": {"TTL": "10"}}', 'Request decode failed: time: missing unit in duration "10"'),
        (b'{"Name": "a", "Check": {"TTL": "-5s"}}', "Invalid check: TTL must be > 0 for TTL checks"),
        (b'{"Name": "a", "Check": {"Name": "n"}}', "Invalid check: TTL must be > 0 for TTL checks"),
        (
            b'{"Name": "a", "Check": {"TTL": "5s", "Interval": "5s"}}',
            "Invalid check: Interval and TTL cannot both be specified",
        ),
        (
            b'{"Name": "a", "Check": {"TTL": "5s", "HTTP": "http://a", "Interval": "5s"}}',
            "Invalid check: Interval and TTL cannot both be specified",
        ),
        (
            b'{"Name": "a", "Check": {"TTL": "5s", "Status": "well"}}',
            "Status for checks must 'passing', 'warning', 'critical'",
        ),
        (b'{"Name": "a", "Address": "0.0.0.0"}', "Invalid service address"),
        (b'{"Name": "a", "Weights": {"Passing": 0}}', "Invalid Weights: Passing must be greater than 0"),
        (
            b'{"Name": "a", "Weights": {"Passing": 70000}}',
            "Invalid Weights: DNS Weight must be between 0 and 65535",
        ),
        (
            b'{"Name": "a", "Meta": {"a b": "v"}}',
            "Invalid Service Meta: Couldn't load metadata pair ('a b', 'v'): Key contains invalid characters",
        ),
        (
            b'{"Name": "a", "Meta": {"": "v"}}',
            "Invalid Service Meta: Couldn't load metadata pair ('', 'v'): Key cannot be blank",
        ),
        (
            b'{"Name": "a", "Meta": {"consul-x": "v"}}',
            "Invalid Service Meta: Couldn't load metadata pair ('consul-x', 'v'): "
            "Key prefix 'consul-' is reserved for internal use",
        ),
    ],
)
async def test_a_registration_that_consul_refuses(port: ConsulPort, body: bytes, text: str) -> None:
    answer = await port.put(REGISTER, body)
    assert (answer.status, answer.text) == (400, text)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "body", [b"[]", b'"a"', b"5", b'{"Name": "a", "Checks": {}}', b'{"Name": "a", "Meta": {"a": 5}}']
)
async def test_a_registration_of_the_wrong_shape(port: ConsulPort, body: bytes) -> None:
    answer = await port.put(REGISTER, body)
    assert answer.status == 400
    assert answer.text.startswith("Request decode failed: json: cannot unmarshal ")


async def test_metadata_is_bounded(port: ConsulPort) -> None:
    for meta in ({f"k{number}": "v" for number in range(65)}, {"k" * 129: "v"}, {"k": "v" * 513}):
        answer = await port.put(REGISTER, {"Name": "bounded", "Meta": meta})
        assert answer.status == 400
        assert answer.text.startswith("Invalid Service Meta: ")


async def test_fields_may_be_written_in_any_case_and_with_underscores(port: ConsulPort) -> None:
    name = f"s-{uuid.uuid4().hex[:8]}"
    body = {
        "name": name,
        "TAGS": ["a"],
        "enable_tag_override": True,
        "check": {"ttl": "30s", "status": "passing", "deregister_critical_service_after": "2m"},
    }
    assert (await port.put(REGISTER, body)).status == 200
    service = await port.read(f"agent/service/{name}")
    assert (service["Tags"], service["EnableTagOverride"]) == (["a"], True)
    assert (await port.read("agent/checks"))[f"service:{name}"]["Status"] == "passing"


async def test_null_and_empty_fields_ask_for_nothing(port: ConsulPort) -> None:
    name = f"s-{uuid.uuid4().hex[:8]}"
    body: dict[str, Any] = {
        "Name": name,
        "ID": "",
        "Tags": None,
        "Meta": None,
        "Check": {},
        "Checks": None,
        "Weights": None,
    }
    assert (await port.put(REGISTER, body)).status == 200
    service = await port.read(f"agent/service/{name}")
    assert (service["ID"], service["Tags"], service["Weights"]) == (name, [], {"Passing": 1, "Warning": 1})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("PUT", "agent/check/pass/none", None, 500, 'CheckID "none" does not have associated TTL'),
        ("PUT", "agent/check/pass/a%2Fb", None, 500, 'CheckID "a/b" does not have associated TTL'),
        ("PUT", "agent/check/pass/", None, 500, 'CheckID "" does not have associated TTL'),
        ("PUT", "agent/check/update/none", {"Status": "passing"}, 500, 'CheckID "none" does not have associated TTL'),
        ("PUT", "agent/check/update/none", {"Status": "well"}, 400, "Invalid check status: 'well'"),
        ("PUT", "agent/check/update/none", {}, 400, "Invalid check status: ''"),
        ("PUT", "agent/check/update/none", b"", 400, "Request decode failed: EOF"),
        ("PUT", "agent/check/update/none", {"Bogus": 1}, 400, 'Request decode failed: json: unknown field "Bogus"'),
        ("GET", "agent/check/pass/none", None, 405, "method GET not allowed"),
        ("PUT", "agent/service/deregister/", None, 500, "ServiceID missing"),
        ("GET", "agent/service/none", None, 404, "unknown service ID: none"),
        ("POST", "agent/services", None, 405, "method POST not allowed"),
        ("DELETE", "status/leader", None, 405, "method DELETE not allowed"),
        ("GET", "health/service/", None, 400, "Missing service name"),
        ("GET", "catalog/service/", None, 400, "Missing service name"),
        ("GET", "health/checks/", None, 400, "Missing service name"),
        ("GET", "health/state/", None, 400, "Missing check state"),
        ("GET", "health/service/a?passing=maybe", None, 400, "Invalid value for ?passing"),
        ("GET", "health/service/a?index=-1", None, 400, "Invalid index"),
        ("GET", "health/service/a?index=1&wait=soon", None, 400, "Invalid wait time"),
        ("GET", "catalog/services?dc=elsewhere", None, 500, "No path to datacenter"),
        (
            "GET",
            "catalog/services?stale&consistent",
            None,
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        ("GET", "none", None, 404, ""),
        ("GET", "catalog", None, 404, ""),
        ("GET", "catalog/services/", None, 404, ""),
        ("GET", "Catalog/services", None, 404, ""),
        ("GET", "status/leader/x", None, 404, ""),
    ],
)
async def test_a_request_that_consul_refuses(
    port: ConsulPort, method: str, path: str, body: Any, status: int, text: str
) -> None:
    answer = await port.ask(method, path, body)
    assert (answer.status, answer.text) == (status, text)


async def test_methods_are_listed_on_request(port: ConsulPort) -> None:
    answer = await port.ask("OPTIONS", "kv/a")
    assert (answer.status, answer.headers["allow"]) == (200, "OPTIONS,GET,PUT,DELETE")
    assert (await port.ask("PATCH", "kv/a")).headers["allow"] == "OPTIONS,GET,PUT,DELETE"


@pytest.mark.parametrize("body", [{"Args": ["true"]}, {"ScriptArgs": ["true"]}, {"Args": ["true"], "Shell": "sh"}])
async def test_scripts_are_off_unless_an_operator_enables_them(port: ConsulPort, body: dict[str, Any]) -> None:
    answer = await port.put(REGISTER, {"Name": "checked", "Check": {**body, "Interval": "10s"}})
    assert answer.status == 500
    assert answer.text == (
        "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true"
    )


# From here on: where our registry is stricter than Consul, or not as far.


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ({"HTTP": "http://169.254.169.254/latest/meta-data"}, "169.254.169.254 is a link-local address"),
        ({"HTTP": "https://[fe80::1]:8443/"}, "fe80::1 is a link-local address"),
        ({"TCP": "100.100.100.200:80"}, "100.100.100.200 is a cloud metadata address"),
        ({"GRPC": "[fe80::1]:9/shop.Orders"}, "fe80::1 is a link-local address"),
    ],
)
async def test_a_check_of_an_address_that_nobody_connects_to_is_refused(
    ours: ConsulPort, check: dict[str, Any], reason: str
) -> None:
    answer = await ours.put(REGISTER, {"Name": "checked", "Check": {**check, "Interval": "10s"}})
    assert (answer.status, answer.text) == (400, f"Invalid check: {reason}")
    assert (await ours.get("agent/service/checked")).status == 404


async def test_a_check_of_the_meshs_own_management_is_refused(ours: ConsulPort) -> None:
    for host in ("127.0.0.1", "localhost"):
        target = ours.url.replace("127.0.0.1", host)
        answer = await ours.put(
            REGISTER, {"Name": "checked", "Check": {"HTTP": f"{target}/v1/kv/a", "Interval": "10s"}}
        )
        assert answer.status == 400
        assert answer.text.endswith("is a management address of the mesh")


@pytest.mark.parametrize("field", ["UDP", "H2PING", "OSService", "DockerContainerID", "TLSServerName", "ProxyHTTP"])
async def test_a_field_of_a_check_that_is_not_honoured_is_refused(ours: ConsulPort, field: str) -> None:
    answer = await ours.put(REGISTER, {"Name": "checked", "Check": {field: "x", "TTL": "10s"}})
    assert (answer.status, answer.text) == (400, f"Invalid check: {field} is not supported by this registry")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"Kind": "connect-proxy"}, "Kind is not supported"),
        ({"Connect": {"Native": True}}, "Connect is not supported"),
        ({"Port": 70000}, "Invalid service port"),
        ({"Port": -1}, "Invalid service port"),
        ({"Address": "not a host"}, "not a host name or an IP address"),
        ({"Address": "169.254.169.254"}, "link-local"),
        ({"Address": "100.100.100.200"}, "cloud metadata"),
        ({"TaggedAddresses": {"wan": {"Address": "169.254.1.1", "Port": 1}}}, "link-local"),
        ({"Tags": ["x"] * 65}, "more than 64 tags"),
        ({"Tags": ["x" * 256]}, "at most 255 characters"),
        ({"Tags": ["a\nb"]}, "no control characters"),
        ({"ID": "x" * 256}, "Invalid service ID"),
        ({"ID": "a\u0000b"}, "Invalid service ID"),
        ({"Checks": [{"TTL": "1s", "CheckID": f"c{number}"} for number in range(17)]}, "more than 16 checks"),
        ({"Check": {"TTL": "1s", "Notes": "x" * 5000}}, "Notes is too long"),
    ],
)
async def test_a_registration_that_only_our_registry_refuses(
    ours: ConsulPort, body: dict[str, Any], words: str
) -> None:
    answer = await ours.put(REGISTER, {"Name": "strict", **body})
    assert answer.status == 400
    assert words in answer.text
    assert (await ours.get("agent/service/strict")).status == 404


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"Name": "\xff"}',
        b'{"Name": "\\ud800"}',
        b'{"Name": "a", "Port": NaN}',
        b'{"Port": ' + b"9" * 5000,
    ],
)
async def test_no_body_makes_the_registry_stumble(ours: ConsulPort, body: bytes) -> None:
    answer = await ours.put(REGISTER, body)
    assert answer.status == 400
    assert answer.text.startswith("Request decode failed: ")


async def test_what_is_not_supported_yet_is_refused_and_not_ignored(ours: ConsulPort) -> None:
    answer = await ours.get("catalog/services?filter=x==y")
    assert answer.status == 400
    assert "not supported by" in answer.text
