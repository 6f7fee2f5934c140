"""Who waits for a key in a worker, for which answer of the parent, and until when."""

import asyncio
from typing import Any

from toska_gateway.worker.auth.key_rings import KeyRing, KeyRings
from toska_tests.issuers import SigningKey

OLD, NEW = SigningKey("ES256", "old"), SigningKey("ES256", "new")


class Waiting:
    """A request that waits for a key."""

    def __init__(self, ring: KeyRing, kid: str) -> None:
        self._ring = ring
        self.kid: str | None = kid
        self.outcome = ""

    def retry(self) -> bool:
        if self._ring.keys.find(self.kid, "ES256"):
            self.outcome = "passed"
        return bool(self.outcome)

    def give_up(self) -> None:
        self.outcome = "refused"


def message(*keys: SigningKey, answer: bool = True, fresh: bool = True, quiet_s: float = 0.0) -> dict[str, Any]:
    version = ",".join(key.kid or "" for key in keys)
    jwks = [key.jwk for key in keys]
    return {
        "source": "s", "version": version, "keys": jwks, "fresh": fresh, "answer": answer, "quiet_s": quiet_s
    }  # fmt: skip


class Rig:
    """One source's keys, and how often the parent was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.rings = KeyRings(asyncio.get_running_loop(), self.asked.append)
        self.ring = self.rings.ring("s")
        self.rings.take(message(OLD, answer=False))

    def waiting(self, kid: str) -> Waiting:
        one = Waiting(self.ring, kid)
        if not self.ring.wait(one):
            one.give_up()
        return one


async def test_all_that_miss_a_key_wait_for_one_answer() -> None:
    rig = Rig()
    waiting = [rig.waiting("new") for _ in range(10)]
    assert rig.asked == ["s"]
    rig.rings.take(message(OLD, NEW))
    assert {one.outcome for one in waiting[:1]} == {"passed"}
    assert {one.outcome for one in waiting} == {"passed"}


async def test_who_comes_after_the_parent_was_asked_is_not_refused_for_an_answer_that_may_be_too_old() -> None:
    rig = Rig()
    early = rig.waiting("forged")
    late = rig.waiting("new")
    rig.rings.take(message(OLD))  # looked at before the new key was published
    assert (early.outcome, late.outcome) == ("refused", "")
    assert rig.asked == ["s", "s"]
    rig.rings.take(message(OLD, NEW))
    assert late.outcome == "passed"


async def test_keys_that_come_unasked_let_pass_and_refuse_nobody() -> None:
    rig = Rig()
    new, forged = rig.waiting("new"), rig.waiting("forged")
    rig.rings.take(message(OLD, NEW, answer=False))
    assert (new.outcome, forged.outcome) == ("passed", "")


async def test_a_key_that_was_asked_for_in_vain_is_not_asked_for_again_until_there_are_others() -> None:
    rig = Rig()
    rig.waiting("forged")
    rig.rings.take(message(OLD))
    assert rig.waiting("forged").outcome == "refused"
    assert rig.asked == ["s"]
    rig.rings.take(message(OLD, NEW, answer=False))
    assert rig.waiting("forged").outcome == ""
    assert rig.asked == ["s", "s"]


async def test_while_the_parent_will_not_look_nobody_waits() -> None:
    rig = Rig()
    rig.waiting("a")
    rig.rings.take(message(OLD, quiet_s=20.0))
    assert rig.waiting("b").outcome == "refused"
    assert rig.asked == ["s"]
    assert 19 <= rig.ring.retry_after <= 20


async def test_what_nobody_could_tell_is_not_remembered_as_missing() -> None:
    rig = Rig()
    rig.waiting("new")
    rig.rings.take(message(OLD, fresh=False))
    assert not rig.ring.fresh
    assert rig.waiting("new").outcome == ""
    assert rig.asked == ["s", "s"]


async def test_no_more_than_a_thousand_wait() -> None:
    rig = Rig()
    waiting = [rig.waiting(f"k{i}") for i in range(1001)]
    assert [one.outcome for one in waiting] == [*[""] * 1000, "refused"]
    rig.ring.leave(waiting[0])  # its client has gone
    assert rig.waiting("k").outcome == ""
    rig.rings.take(message(OLD))
    assert waiting[0].outcome == ""


async def test_a_source_is_forgotten_with_the_last_that_uses_it() -> None:
    rig = Rig()
    again = rig.rings.ring("s")
    assert again is rig.ring
    del again
    rig.ring = rig.rings.ring("other")
    rig.rings.take(message(OLD))  # for nobody
    assert len(rig.rings.ring("s").keys) == 0
