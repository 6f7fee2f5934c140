"""What an app reports of itself with each renewal, from its own metrics."""

from prometheus_client import CollectorRegistry
from toska_common.contracts.discovery import MAX_CALLERS, OTHER_CALLERS, Report
from toska_common.mesh.callers import Callers
from toska_common.mesh.vitals import AT_MOST_S, Vitals, read_totals
from toska_common.metrics import ServiceMetrics


class App:
    """An app's metrics and its vitals, five seconds between reports."""

    def __init__(self, capacity: int | None = None) -> None:
        self.metrics = ServiceMetrics()
        self.callers = Callers(self.metrics.registry)
        self.now = 0.0
        self._vitals = Vitals(capacity, self.now)

    def serve(self, count: int, *, status: int = 200, seconds: float = 0.004) -> None:
        for _ in range(count):
            self.metrics.begin()
            self.metrics.end("GET", "/", status, seconds)

    def report(self, after_s: float = 5.0) -> Report:
        self.now += after_s
        return self._vitals.report(read_totals(self.metrics.registry.collect()), self.now)


def test_an_app_without_requests_is_well() -> None:
    assert App().report() == Report()


def test_answers_from_500_on_lower_the_score_by_their_share_and_others_do_not() -> None:
    app = App()
    app.serve(80)
    app.serve(20, status=404)
    assert app.report().score == 1
    app.serve(30)
    app.serve(10, status=503)
    report = app.report()
    assert (report.score, report.error_ratio, report.requests) == (0.75, 0.25, 140)


def test_few_requests_wait_for_more_and_say_nothing_after_a_while() -> None:
    app = App()
    app.serve(9, status=500)
    assert app.report().score == 1
    app.serve(1, status=500)
    assert app.report().score == 0
    assert app.report().score == 0
    app.serve(3, status=500)
    assert app.report(AT_MOST_S).score == 1


def test_a_median_far_above_the_usual_one_lowers_the_score() -> None:
    app = App()
    for _ in range(5):
        app.serve(50, seconds=0.004)
        assert app.report().score == 1
    app.serve(50, seconds=0.4)
    report = app.report()
    assert report.latency_ms is not None
    assert 250 < report.latency_ms <= 500
    assert report.score < 0.1
    app.serve(50, seconds=0.004)
    assert app.report().score == 1


def test_one_long_stream_does_not_make_an_app_slow() -> None:
    app = App()
    app.serve(50)
    app.report()
    app.serve(49)
    app.serve(1, seconds=3600)
    report = app.report()
    assert report.score == 1
    assert report.latency_ms is not None
    assert report.latency_ms < 5


def test_load_counts_where_the_capacity_is_known() -> None:
    app, unknowing = App(capacity=10), App()
    for _ in range(10):
        app.metrics.begin()
        unknowing.metrics.begin()
    report = app.report()
    assert (report.in_flight, report.load, report.score) == (10, 1.0, 0.5)
    report = unknowing.report()
    assert (report.in_flight, report.load, report.score) == (10, None, 1)


def test_callers_are_counted_by_name_up_to_a_bound() -> None:
    callers = Callers(registry := CollectorRegistry())
    for _ in range(3):
        callers.count("shop")
    for caller in ("Not A Name", "", "x" * 64, "a\nb"):
        callers.count(caller)
    assert read_totals(registry.collect()).callers == {"shop": 3}
    for number in range(MAX_CALLERS + 5):
        callers.count(f"caller-{number}")
    counted = read_totals(registry.collect()).callers
    assert len(counted) == MAX_CALLERS + 1
    assert counted[OTHER_CALLERS] == 6
