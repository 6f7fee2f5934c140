"""Sessions in time: how long they live, what a late sweep does to them, and what a restart leaves of them."""

from pathlib import Path

import pytest
from toska_common.contracts.discovery import Health
from toska_discovery.errors import SessionRefused
from toska_discovery.node import OWN_NODE
from toska_discovery.registry import Registry
from toska_discovery.session import Behavior, EndReason, Session
from toska_discovery.store import SqliteStore
from toska_tests.registrations import NOON, check, service

SWEEP_S = 0.25
TTL_S = 10.0


class Life:
    """A registry and its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.registry = Registry(sweep_interval_s=SWEEP_S, now=0.0)
        self.state = self.registry.coordination
        self.ended: list[tuple[float, str, EndReason]] = []

    def create(self, session_id: str = "s", **fields: object) -> None:
        self.state.create_session(Session(session_id, OWN_NODE, **fields), self.now)  # pyright: ignore[reportArgumentType] - a test's keywords

    def live(self, seconds: float) -> None:
        for _ in range(round(seconds / SWEEP_S)):
            self.now += SWEEP_S
            self.sweep()

    def sweep(self) -> None:
        changes = self.registry.sweep(self.now)
        self.ended += [(self.now, session.id, reason) for session, reason in changes.ended]


@pytest.fixture
def life() -> Life:
    return Life()


def test_a_session_that_is_not_renewed_ends_between_one_ttl_and_two(life: Life) -> None:
    life.create(ttl_s=TTL_S)
    life.live(TTL_S)
    assert "s" in life.state.sessions.by_id
    life.live(TTL_S)
    ((at, session_id, reason),) = life.ended
    assert (session_id, reason) == ("s", EndReason.EXPIRED)
    assert TTL_S <= at <= 2 * TTL_S


def test_a_session_that_is_renewed_lives_on_and_one_without_ttl_always(life: Life) -> None:
    life.create("renewed", ttl_s=TTL_S)
    life.create("for ever")
    for _ in range(20):
        life.live(TTL_S - SWEEP_S)
        assert life.state.renew_session("renewed", life.now) is not None
    assert {*life.state.sessions.by_id} == {"renewed", "for ever"}
    assert life.state.renew_session("nobody", life.now) is None


def test_a_sweep_that_comes_late_ends_nobody_who_could_not_be_heard(life: Life) -> None:
    life.create(ttl_s=TTL_S)
    life.live(TTL_S)
    life.now += 3600.0
    life.sweep()
    assert not life.ended
    life.state.renew_session("s", life.now)
    life.live(TTL_S)
    assert not life.ended


def test_a_renewal_changes_nothing_that_is_stored_or_seen(life: Life) -> None:
    life.create(ttl_s=TTL_S)
    before = life.registry.index, life.state.sessions.index
    life.state.renew_session("s", life.now)
    assert (life.registry.index, life.state.sessions.index) == before


def test_an_expired_session_loses_its_locks_for_their_delay(life: Life) -> None:
    life.create("one", ttl_s=TTL_S, lock_delay_s=5.0)
    life.create("two")
    assert life.state.acquire("k", b"v", 0, "one", life.now)[0]
    life.live(2 * TTL_S)
    assert [session for _, session, _ in life.ended] == ["one"]
    life.live(5.0)
    ended_at = life.ended[0][0]
    assert life.now >= ended_at + 5.0
    assert life.state.acquire("k", b"v", 0, "two", life.now)[0]
    life.state.destroy_session("two", life.now)
    life.create("three")
    assert not life.state.acquire("k", b"v", 0, "three", life.now)[0]
    life.live(14.0)
    assert not life.state.acquire("k", b"v", 0, "three", life.now)[0]
    life.live(1.25)
    assert life.state.acquire("k", b"v", 0, "three", life.now)[0]


def test_no_lock_delay_is_longer_than_a_minute(life: Life) -> None:
    life.create("one", lock_delay_s=3600.0)
    life.state.acquire("k", b"v", 0, "one", life.now)
    life.state.destroy_session("one", life.now)
    life.create("two")
    life.live(60.25)
    assert life.state.acquire("k", b"v", 0, "two", life.now)[0]


def test_a_check_that_lapses_takes_its_sessions_with_it_in_the_same_change(life: Life) -> None:
    life.registry.register(service("a"), [check("c", ttl_s=1.0)], life.now, NOON)
    life.create(service_checks=("c",), behavior=Behavior.DELETE)
    life.state.acquire("k", b"v", 0, "s", life.now)
    life.live(1.5)
    assert [(session, reason) for _, session, reason in life.ended] == [("s", EndReason.INVALIDATED)]
    assert life.state.keys.find("k") is None
    found = life.registry.find_check("c")
    assert found is not None
    assert found[1].modify_index == life.registry.index == life.state.sessions.index


def test_no_session_is_bound_to_what_is_not_well(life: Life) -> None:
    life.registry.register(service("a"), [check("c", status=Health.CRITICAL)], life.now, NOON)
    for fields, reason in (
        ({"service_checks": ("c",)}, "Check 'c' is in critical state"),
        ({"node_checks": ("none",)}, "Missing check 'none' registration"),
    ):
        with pytest.raises(SessionRefused) as caught:
            life.create(**fields)  # pyright: ignore[reportArgumentType] - see above
        assert caught.value.detail == reason
    with pytest.raises(SessionRefused, match="Missing node registration"):
        life.state.create_session(Session("s", "nowhere"), life.now)


async def test_sessions_locks_and_delays_survive_a_restart_with_their_whole_time_before_them(tmp_path: Path) -> None:
    life = Life()
    async with SqliteStore.open(tmp_path) as store:
        for session in (
            Session("one", OWN_NODE, "n", "10s", TTL_S, 5.0, Behavior.DELETE, ("serfHealth",), None, ()),
            Session("two", OWN_NODE, lock_delay_s=30.0),
        ):
            store.save(life.state.create_session(session, 0.0))
        for key, holder in (("held", "one"), ("lost", "two")):
            store.save(life.state.acquire(key, b"v", 3, holder, 0.0)[1])
        store.save(life.state.destroy_session("two", 0.0))
        await store.flush()
    async with SqliteStore.open(tmp_path) as store:
        stored = store.stored
    after = Life()
    after.now = 1000.0
    after.registry.load(
        stored.instances, stored.keys, stored.index, after.now, sessions=stored.sessions, delays=stored.delays
    )
    assert after.state.sessions.by_id == {"one": life.state.sessions.by_id["one"]}
    assert [after.state.keys.find(key) for key in ("held", "lost")] == [
        life.state.keys.find(key) for key in ("held", "lost")
    ]
    assert after.state.sessions.index == stored.index
    after.create("three")
    assert not after.state.acquire("held", b"", 0, "three", after.now)[0]
    after.live(TTL_S)
    assert not after.ended
    after.live(TTL_S)
    assert [session for _, session, _ in after.ended] == ["one"]
    assert after.state.keys.find("held") is None
    assert not after.state.acquire("lost", b"", 0, "three", after.now)[0]
    after.live(10.25)
    assert after.state.acquire("lost", b"", 0, "three", after.now)[0]
    lost = after.state.keys.find("lost")
    assert lost is not None
    assert lost.lock_index == 2
