"""Addresses that the mesh connects to for nobody."""

import pytest
from toska_common.targets import TargetRules

MESH = TargetRules(frozenset({("127.0.0.1", 8100), ("localhost", 8101), ("0.0.0.0", 8102), ("10.1.2.3", 8103)}))


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("169.254.169.254", 80),
        ("fe80::1%eth0", 80),
        ("::ffff:169.254.169.254", 80),
        ("64:ff9b::a9fe:a9fe", 80),
        ("2002:a9fe:a9fe::1", 80),
        ("::169.254.169.254", 80),
        ("100.100.100.200", 80),
        ("168.63.129.16", 80),
        ("fd00:ec2::254", 80),
        ("224.0.0.1", 80),
        ("127.0.0.1", 8100),
        ("127.9.9.9", 8100),
        ("::1", 8100),
        ("::ffff:127.0.0.1", 8100),
        ("0.0.0.0", 8100),
        ("127.0.0.1", 8101),
        ("127.0.0.1", 8102),
        ("10.1.2.3", 8103),
        ("not-resolved.example", 80),
    ],
)
def test_link_local_metadata_and_management_addresses_are_refused_with_a_reason(address: str, port: int) -> None:
    assert MESH.refusal(address, port)


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("127.0.0.1", 9001),
        ("10.1.2.4", 8103),
        ("10.0.0.5", 8102),
        ("127.0.0.1", 8103),
        ("2001:db8::1", 443),
        ("64:ff9b::a01:204", 80),
    ],
)
def test_other_addresses_are_allowed(address: str, port: int) -> None:
    assert MESH.refusal(address, port) is None
