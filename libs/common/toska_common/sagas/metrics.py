"""What Prometheus is told of sagas."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from toska_common.contracts.sagas import OutcomeKind, SagaState

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class SagaMetrics:
    """The metrics of one service's sagas; labels are names from its code."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._started = Counter("toska_sagas_started", "Sagas started here", ("saga",), registry=registry)
        self._ended = Counter("toska_sagas_ended", "Sagas that ended here", ("saga", "state"), registry=registry)
        self._stuck = Counter("toska_sagas_stuck", "Times that a saga got stuck here", ("saga",), registry=registry)
        self._active = Gauge("toska_sagas_active", "Sagas that this process runs", ("saga",), registry=registry)
        self._open = Gauge(
            "toska_sagas_open",
            "Sagas of the service by state, as far as they have not ended",
            ("state",),
            registry=registry,
        )
        self._attempt = Histogram(
            "toska_sagas_attempt_duration_seconds",
            "Attempts of actions and compensations",
            ("saga", "step", "kind", "outcome"),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._taken_over = Counter(
            "toska_sagas_slots_taken_over", "Processes whose sagas were given to others", registry=registry
        )
        self._lost = Counter("toska_sagas_leases_lost", "Times that this process lost its slot", registry=registry)

    def started(self, saga: str) -> None:
        """A saga was stored that was not there before."""
        self._started.labels(saga).inc()

    def ended(self, saga: str, state: SagaState) -> None:
        """A saga reached a final state, or got stuck."""
        if state is SagaState.STUCK:
            self._stuck.labels(saga).inc()
        else:
            self._ended.labels(saga, state.value).inc()

    def active(self, saga: str) -> "Gauge":
        """The gauge of those that run here."""
        return self._active.labels(saga)

    def attempted(self, saga: str, step: str, outcome: OutcomeKind, seconds: float, *, compensation: bool) -> None:
        """An attempt ended."""
        kind = "compensation" if compensation else "action"
        self._attempt.labels(saga, step, kind, outcome.value).observe(seconds)

    def unfinished(self, counts: dict[str, int]) -> None:
        """How many sagas of the service are in which of the states that are not final."""
        for state in (SagaState.RUNNING, SagaState.COMPENSATING, SagaState.STUCK):
            self._open.labels(state.value).set(counts.get(state.value, 0))

    def taken_over(self, executors: int) -> None:
        """So many processes were found dead."""
        self._taken_over.inc(executors)

    def lost(self) -> None:
        """This process was taken for dead."""
        self._lost.inc()
