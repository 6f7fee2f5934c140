"""Every case, played to every engine; what one cannot do is listed by name in `toska_tests.conformance.engine`."""

from collections.abc import AsyncGenerator

import pytest
from toska_tests.conformance.case import Case
from toska_tests.conformance.cases import CASES
from toska_tests.conformance.engine import ENGINES, Engine, Serving
from toska_tests.conformance.stage import staged


@pytest.fixture(scope="module", params=ENGINES, ids=[engine.name for engine in ENGINES])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in its turn."""
    return request.param()


@pytest.fixture(scope="module")
async def serving(engine: Engine) -> AsyncGenerator[Serving]:
    """One running engine for all cases."""
    async with engine.running() as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_case(case: Case, engine: Engine, serving: Serving, request: pytest.FixtureRequest) -> None:
    reason = engine.cannot.get(case.name)
    if reason is not None:
        # Strict: what an engine has learned leaves its list.
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    async with staged(case, serving) as stage:
        for number, step in enumerate(case.steps, 1):
            try:
                await step.play(stage)
            except (AssertionError, EOFError, OSError) as error:
                raise AssertionError(f"step {number} of {len(case.steps)}: {error or type(error).__name__}") from error


def test_names_tell_cases_apart() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", ENGINES, ids=[engine.name for engine in ENGINES])
def test_what_an_engine_cannot_do_is_a_case_and_has_a_reason(kind: type[Engine]) -> None:
    assert set(kind.cannot) <= {case.name for case in CASES}
    assert all(kind.cannot.values())
