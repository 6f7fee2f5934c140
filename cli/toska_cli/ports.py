"""Which port each part of the mesh listens on when one command runs them all."""

from dataclasses import dataclass

from toska_common.errors import ConfigurationError

EXAMPLES_OFFSET = 10
_SPAN = 20
"""How many ports `--ports-from` lays claim to, room for further services included."""


@dataclass(frozen=True, slots=True)
class PortPlan:
    """Ports of the all-in-one mesh; examples take consecutive ones from `examples` on."""

    gateway: int = 8080
    gateway_admin: int = 8100
    discovery: int = 8101
    discovery_grpc: int = 18101
    events_grpc: int = 18108
    registry: int = 8500
    router: int = 8102
    events: int = 8108
    dns: int = 8600
    xds: int = 18000
    envoy: int = 10000
    examples: int = 8110

    @classmethod
    def starting_at(cls, first: int) -> "PortPlan":
        """Everything moved to `first` and up, for a second mesh on one machine.

        Raises:
            ConfigurationError: The range does not fit between 1 and 65535.
        """
        if not 1 <= first <= 65535 - _SPAN:
            raise ConfigurationError(f"--ports-from {first}: choose a first port between 1 and {65535 - _SPAN}")
        return cls(
            gateway=first,
            gateway_admin=first + 1,
            discovery=first + 2,
            registry=first + 3,
            router=first + 4,
            dns=first + 5,
            discovery_grpc=first + 6,
            xds=first + 7,
            envoy=first + 8,
            events=first + 9,
            examples=first + EXAMPLES_OFFSET,
            events_grpc=first + _SPAN - 1,
        )
