"""A registry that is being filled: whoever is in it must be renewed all the while."""

from benchmarks.discovery.crowd import in_turn


def test_nobody_waits_longer_than_one_round_for_a_renewal_while_the_registry_grows() -> None:
    known = [b"0"]
    turns = in_turn(known)
    last = {b"0": 0}
    longest = 0
    for moment in range(1, 20_000):
        renewed = next(turns)
        longest = max(longest, moment - last[renewed])
        last[renewed] = moment
        if moment % 13 == 0:  # as slow beside the renewals as where half of all leases lapsed
            new = str(len(known)).encode()
            known.append(new)
            last[new] = moment
    overdue = max(20_000 - moment for moment in last.values())
    assert max(longest, overdue) <= 2 * len(known)
