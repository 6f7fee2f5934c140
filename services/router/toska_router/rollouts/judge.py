"""Compares a canary with its baseline, check by check.

Each check says one of three things: `good`, the canary is within its limit as far as can be seen; `bad`, it is beyond
it, and that is proven; or `suspicious`, it seems to be beyond, and may yet turn out to have had bad luck. Only proof
rolls back before a deadline, and only `good` goes on.

A latency is a share too: the p95 is above a limit if and only if more than 5% of requests are slower than that. So all
checks go by the same bounds (`confidence`), and the chance to be wrong is divided among everything that is compared.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from toska_common.contracts.rollouts import Comparison, ErrorCheck, LatencyCheck, Rollout, RolloutChecks, Verdict
from toska_common.latencies import BOUNDS_US

from toska_router.rollouts.confidence import lower_bound, upper_bound
from toska_router.rollouts.counts import Side, place_of

_WORST_FIRST: tuple[Verdict, ...] = ("bad", "suspicious", "thin")


def judge(checks: RolloutChecks, canary: Side, baseline: Side | None, *, alpha: float) -> tuple[Comparison, ...]:
    """Hold the canary to every check.

    Args:
        checks: Of the rollout.
        canary: What it had to do in this step.
        baseline: What it is compared with; `None` if there is nothing.
        alpha: The chance to take for bad what is not, for each bound that is worked out (`alpha_of`).
    """
    found = list(_errors(checks.errors, canary, baseline, alpha))
    for check in checks.latency:
        found += _latency(check, canary, baseline, alpha)
    return tuple(found)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of them; good if there are none."""
    for verdict in _WORST_FIRST:
        if verdict in verdicts:
            return verdict
    return "good"


def alpha_of(rollout: Rollout) -> float:
    """The chance that one bound may be wrong, if the whole rollout may be with 1 - confidence."""
    checks = rollout.checks
    relative = 1 + len(checks.latency)  # each with a bound of the canary and one of the baseline
    absolute = (checks.errors.max is not None) + sum(check.max is not None for check in checks.latency)
    return (1 - checks.confidence) / (len(rollout.steps) * (2 * relative + absolute))


def _errors(check: ErrorCheck, canary: Side, baseline: Side | None, alpha: float) -> Iterator[Comparison]:
    seen = canary.error_ratio
    if seen is None:
        return
    at_least = lower_bound(canary.failed, canary.requests, alpha)
    if check.max is not None:
        verdict = _verdict(seen > check.max, at_least > check.max)
        says = f"{_percent(seen)} of the canary's requests failed; at most {_percent(check.max)} may"
        yield Comparison(check="errors.max", verdict=verdict, canary=seen, limit=check.max, says=says)
    if baseline is None or baseline.error_ratio is None:
        return
    limit = baseline.error_ratio + check.max_increase
    at_most = upper_bound(baseline.failed, baseline.requests, alpha)
    verdict = _verdict(seen > limit, at_least > at_most + check.max_increase)
    says = f"{_percent(seen)} failed, and {_percent(baseline.error_ratio)} of the baseline's"
    if verdict == "bad":
        says += f"; at least {_percent(at_least)} fail, and of the baseline's at most {_percent(at_most)}"
    yield Comparison(
        check="errors", verdict=verdict, canary=seen, baseline=baseline.error_ratio, limit=limit, says=says
    )


def _latency(check: LatencyCheck, canary: Side, baseline: Side | None, alpha: float) -> Iterator[Comparison]:
    name = f"p{check.quantile * 100:g}"
    seen = canary.latency_s(check.quantile)
    if seen is None:
        return
    if check.max is not None:
        limit = check.max.total_seconds()
        proven = _is_slower(canary, place_of(check.max), check.quantile, alpha)
        says = f"the canary's {name} is {_ms(seen)}; at most {_ms(limit)} is allowed"
        yield Comparison(
            check=f"{name}.max", verdict=_verdict(seen > limit, proven), canary=seen * 1e3, limit=limit * 1e3, says=says
        )
    known = None if baseline is None else baseline.latency_s(check.quantile)
    if baseline is None or known is None:
        return
    limit = _allowed(check, known)
    place = _baseline_at_most(baseline, check.quantile, alpha)
    proven = False
    if place is not None:
        highest = timedelta(seconds=_allowed(check, BOUNDS_US[place] / 1e6))
        proven = _is_slower(canary, place_of(highest), check.quantile, alpha)
    says = f"the canary's {name} is {_ms(seen)}, the baseline's {_ms(known)}; at most {_ms(limit)} is allowed"
    yield Comparison(
        check=name,
        verdict=_verdict(seen > limit, proven),
        canary=seen * 1e3,
        baseline=known * 1e3,
        limit=limit * 1e3,
        says=says,
    )


def _allowed(check: LatencyCheck, baseline_s: float) -> float:
    return max(baseline_s * check.max_ratio, baseline_s + check.slack.total_seconds())


def _is_slower(side: Side, place: int, quantile: float, alpha: float) -> bool:
    """Whether it is proven that more requests than the quantile leaves over take longer than the bound at `place`."""
    return lower_bound(side.slower_than(place), side.timed, alpha) > 1 - quantile


def _baseline_at_most(side: Side, quantile: float, alpha: float) -> int | None:
    """The place of the first bound that the quantile is proven not to exceed; `None` if there is none yet."""
    trials = side.timed
    low, high = 0, len(BOUNDS_US)
    while low < high:  # the further up the bound, the fewer are slower
        middle = (low + high) // 2
        if upper_bound(side.slower_than(middle), trials, alpha) <= 1 - quantile:
            high = middle
        else:
            low = middle + 1
    return low if low < len(BOUNDS_US) else None


def _verdict(seems_bad: bool, proven: bool) -> Verdict:
    if proven:
        return "bad"
    return "suspicious" if seems_bad else "good"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
