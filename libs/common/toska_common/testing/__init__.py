"""What tests of an app in a mesh need: a clock of their own."""

from toska_common.testing.clock import FakeClock

__all__ = ["FakeClock"]
