"""Where a mesh listens."""

import pytest
from toska_cli.ports import PortPlan
from toska_common.errors import ConfigurationError


def test_ports_from_moves_every_port() -> None:
    assert PortPlan.starting_at(9000) == PortPlan(
        gateway=9000,
        gateway_admin=9001,
        discovery=9002,
        registry=9003,
        router=9004,
        dns=9005,
        discovery_grpc=9006,
        examples=9010,
    )


@pytest.mark.parametrize("first", [0, -1, 65530, 70000])
def test_a_range_that_does_not_fit_is_refused(first: int) -> None:
    with pytest.raises(ConfigurationError, match="between 1 and"):
        PortPlan.starting_at(first)
