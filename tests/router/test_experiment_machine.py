"""When an experiment ends, as a machine that is told the time."""

from datetime import UTC, datetime, timedelta

from toska_common.contracts.experiments import Experiment, ExperimentStatus
from toska_common.contracts.routing import Abort, Fault
from toska_common.contracts.tallies import WholeCounts
from toska_router.experiments.machine import Window, advance, begin

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EXPERIMENT = Experiment(name="chaos", routes=("pay",), fault=Fault(abort=Abort(status=503)), duration=MINUTE)
NOTHING = WholeCounts()


def look(status: ExperimentStatus, window: Window, at_s: float, now: datetime) -> ExperimentStatus:
    """What becomes of it `at_s` after it has begun, when the clock on the wall says `now`."""
    window.add(at_s, NOTHING, 30.0)
    return advance(EXPERIMENT, status, window, NOTHING, now)


def begun(window: Window) -> ExperimentStatus:
    window.add(0.0, NOTHING, 30.0)
    return begin(EXPERIMENT, ExperimentStatus(created_at=NOW), NOW, NOW + MINUTE)


def test_it_lasts_no_longer_than_promised_when_the_clock_on_the_wall_is_put_back() -> None:
    window = Window()
    status = begun(window)
    assert look(status, window, 59.0, NOW - timedelta(hours=1)).phase == "running"
    assert look(status, window, 60.0, NOW - timedelta(hours=1)).phase == "finished"


def test_it_ends_when_the_clock_on_the_wall_is_put_forward() -> None:
    # Gateways go by theirs, and have ended it too.
    window = Window()
    assert look(begun(window), window, 1.0, NOW + MINUTE).phase == "finished"
