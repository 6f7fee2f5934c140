"""How one check after the other makes an endpoint healthy or not."""

from toska_gateway.health_verdict import Verdict
from toska_gateway.probe import statuses_in


def verdicts(outcomes: str, rise: int = 2, fall: int = 3) -> str:
    """What is thought after each check: + passed or healthy, - failed or unhealthy."""
    verdict, found = Verdict(), ""
    assert verdict.healthy is None
    for outcome in outcomes:
        before = verdict.healthy
        changed = verdict.record(passed=outcome == "+", rise=rise, fall=fall)
        assert changed == (verdict.healthy is not before)
        found += "+" if verdict.healthy else "-"
    return found


def test_the_first_check_decides_alone() -> None:
    assert verdicts("+") == "+"
    assert verdicts("-") == "-"


def test_after_that_it_takes_several_in_a_row() -> None:
    assert verdicts("+--+--+---") == "+++++++++-"
    assert verdicts("-+-+-++") == "------+"


def test_what_came_before_a_change_does_not_count_after_it() -> None:
    assert verdicts("+---" + "++" + "--") == "+++-" + "-+" + "++"


def test_one_check_may_be_enough() -> None:
    assert verdicts("+-+-", rise=1, fall=1) == "+-+-"


def test_statuses_are_named_one_by_one_as_a_class_or_as_a_range() -> None:
    assert list(statuses_in("204")) == [204]
    assert statuses_in("2xx") == range(200, 300)
    assert statuses_in("200-399") == range(200, 400)
