"""Random lives of sessions and locks against a model: no lock is lost without a reason, and no index goes back."""

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from toska_common.contracts.discovery import Health
from toska_discovery.catalog_txn import CatalogStage
from toska_discovery.changes import Changes
from toska_discovery.consul.inventory import Inventory
from toska_discovery.consul.views import Node
from toska_discovery.errors import SessionRefused
from toska_discovery.instance import ServiceDefinition
from toska_discovery.node import OWN_NODE
from toska_discovery.registry import Registry
from toska_discovery.session import Behavior, EndReason, Session
from toska_discovery.txn import KeyOperation, run
from toska_tests.registrations import NOON, check

SWEEP_S = 0.25
TTL_S = 10.0
NAMES = st.sampled_from(["a", "b"])
KEYS = st.sampled_from(["k", "k/1", "l"])
LOCKS = st.sampled_from(["k", "k", "l"])
VALUES = st.sampled_from([b"", b"x", b"y"])
DRAWN = st.integers(0, 10)
VERBS = st.sampled_from(
    ["set", "cas", "lock", "unlock", "get", "check-index", "check-session", "check-not-exists", "delete",
     "delete-tree", "delete-cas"],
)  # fmt: skip


@dataclass(frozen=True)
class Key:
    value: bytes
    lock_index: int = 0
    session: str = ""


@dataclass
class Claim:
    session: Session
    renewed_at: float


class LockLife(RuleBasedStateMachine):
    """Sessions bound to checks and TTLs, locks, transactions and time, against dictionaries."""

    @initialize()
    def open(self) -> None:
        self.now = 0.0
        self.registry = Registry(sweep_interval_s=SWEEP_S, now=0.0)
        self.state = self.registry.coordination
        shown = Inventory(self.registry, Node("", "localhost", "127.0.0.1", "dc1", 8300, 1))
        self.stage = CatalogStage(self.registry.listing, self.registry.foreign, shown, NOON, room=10)
        self.claims: dict[str, Claim] = {}
        self.keys: dict[str, Key] = {}
        self.delays: dict[str, tuple[float, float]] = {}
        self.indexes: dict[str, int] = {}
        self.fences: dict[str, int] = {}
        self.serial = 0
        # Without some that are there from the start, random lives rarely come to a lock that changes hands.
        self.register("a")
        self.create(None, TTL_S, 15.0, Behavior.RELEASE)
        self.create("service:a", 0.0, 0.0, Behavior.RELEASE)
        self.acquire("k", b"", 0)

    # What happens.

    @rule(name=NAMES)
    def register(self, name: str) -> None:
        service = ServiceDefinition(name, name, "127.0.0.1", ord(name))
        self.take(self.registry.register(service, [check(f"service:{name}", ttl_s=15)], self.now, NOON))

    @rule(name=NAMES)
    def deregister(self, name: str) -> None:
        self.take(self.registry.deregister(name))

    @rule(name=NAMES, status=st.sampled_from(list(Health)))
    def report(self, name: str, status: Health) -> None:
        if self.registry.find_check(f"service:{name}") is not None:
            self.take(self.registry.report(f"service:{name}", status, "", self.now))

    @rule(seconds=st.sampled_from([0.25, 4.0, 9.0, 16.0, 25.0]))
    def live(self, seconds: float) -> None:
        for _ in range(round(seconds / SWEEP_S)):
            self.now += SWEEP_S
            self.take(self.registry.sweep(self.now))

    @rule(
        bound=st.sampled_from([None, "service:a", "service:b"]),
        ttl_s=st.sampled_from([0.0, TTL_S]),
        delay_s=st.sampled_from([0.0, 15.0]),
        behavior=st.sampled_from(list(Behavior)),
    )
    def create(self, bound: str | None, ttl_s: float, delay_s: float, behavior: Behavior) -> None:
        self.serial += 1
        asked = Session(
            f"{self.serial:036}", OWN_NODE, ttl_s=ttl_s, lock_delay_s=delay_s, behavior=behavior,
            service_checks=None if bound is None else (bound,),
        )  # fmt: skip
        found = None if bound is None else self.registry.find_check(bound)
        is_fine = bound is None or (found is not None and found[1].status is not Health.CRITICAL)
        try:
            changes = self.state.create_session(asked, self.now)
        except SessionRefused:
            assert not is_fine
            return
        assert is_fine
        self.claims[asked.id] = Claim(asked, self.now)
        self.take(changes)

    @precondition(lambda self: self.claims)
    @rule(drawn=DRAWN)
    def renew(self, drawn: int) -> None:
        claim = self.claims[self.pick(drawn)]
        assert self.state.renew_session(claim.session.id, self.now) is not None
        claim.renewed_at = self.now

    @precondition(lambda self: self.claims)
    @rule(drawn=DRAWN)
    def destroy(self, drawn: int) -> None:
        session_id = self.pick(drawn)
        changes = self.state.destroy_session(session_id, self.now)
        assert [(session.id, reason) for session, reason in changes.ended] == [(session_id, EndReason.DESTROYED)]
        self.take(changes)
        assert session_id not in self.claims

    @precondition(lambda self: self.claims)
    @rule(key=LOCKS, value=VALUES, drawn=DRAWN)
    def acquire(self, key: str, value: bytes, drawn: int) -> None:
        session_id = self.pick(drawn)
        before = self.keys.get(key)
        done, changes = self.state.acquire(key, value, 0, session_id, self.now)
        since, delay_s = self.delays.get(key, (0.0, 0.0))
        if done:
            assert self.now >= since + delay_s
            assert before is None or before.session in {"", session_id}
            self.keys[key] = lock(before, value, session_id)
        else:
            held = before is not None and before.session not in {"", session_id}
            assert held or self.now < since + delay_s + 2 * SWEEP_S
        self.take(changes)

    @precondition(lambda self: self.claims)
    @rule(key=LOCKS, value=VALUES, drawn=DRAWN)
    def release(self, key: str, value: bytes, drawn: int) -> None:
        session_id = self.pick(drawn)
        before = self.keys.get(key)
        done, changes = self.state.release(key, value, 0, session_id)
        assert done == (before is not None and before.session == session_id)
        if done and before is not None:
            self.keys[key] = replace(before, value=value, session="")
        self.take(changes)

    @rule(key=KEYS, value=VALUES)
    def put(self, key: str, value: bytes) -> None:
        self.keys[key] = replace(self.keys.get(key, Key(b"")), value=value)
        self.take(self.state.put_key(key, value)[1])

    @rule(prefix=st.sampled_from(["k/", "k/", "l"]))
    def delete_below(self, prefix: str) -> None:
        self.keys = {key: held for key, held in self.keys.items() if not key.startswith(prefix)}
        self.take(self.state.delete_keys_below(prefix))

    @rule(parts=st.lists(st.tuples(VERBS, KEYS, VALUES, DRAWN, st.booleans()), min_size=1, max_size=5))
    def transact(self, parts: list[tuple[str, str, bytes, int, bool]]) -> None:
        operations = [self.operation(*part) for part in parts]
        upcoming = self.registry.index + 1
        expected, fails = dict(self.keys), False
        indexes = {entry.key: entry.modify_index for entry in self.state.keys.list_below("")[0]}
        for operation in operations:
            fails |= not self.apply(operation, expected, indexes, upcoming)
        outcome = run(operations, self.state, self.now, self.stage)
        if outcome.problems:
            assert fails or any("lock delay" in problem.what for problem in outcome.problems)
            assert not outcome.changes
        else:
            assert not fails
            self.keys = expected
        self.take(outcome.changes)

    # The model.

    def operation(self, verb: str, key: str, value: bytes, drawn: int, right: bool) -> KeyOperation:
        entry = self.state.keys.find(key)
        index = entry.modify_index if entry is not None and right else 0
        return KeyOperation(verb, key, value, index=index, session=self.pick(drawn) if self.claims else "")

    def apply(self, operation: KeyOperation, keys: dict[str, Key], indexes: dict[str, int], upcoming: int) -> bool:
        key, value, session_id = operation.key, operation.value, operation.session
        before, index = keys.get(key), indexes.get(key, 0) if key in keys else 0
        match operation.verb:
            case "set":
                after: Key | None = replace(before or Key(b""), value=value)
            case "cas" if operation.index == index:
                after = replace(before or Key(b""), value=value)
            case "lock" if session_id and (before is None or before.session in {"", session_id}):
                after = lock(before, value, session_id)
            case "unlock" if session_id and before is not None and before.session == session_id:
                after = replace(before, value=value, session="")
            case "delete":
                after = None
            case "delete-cas" if before is None or operation.index == index:
                after = None
            case "delete-tree":
                for each in [each for each in keys if each.startswith(key)]:
                    del keys[each]
                return True
            case "get" | "check-index" | "check-session":
                right: dict[str, Any] = {"check-index": operation.index == index}
                return before is not None and right.get(
                    operation.verb, operation.verb == "get" or before.session == session_id
                )
            case "check-not-exists":
                return before is None
            case _:
                return False
        if after is None:
            keys.pop(key, None)
        elif after != before:
            keys[key], indexes[key] = after, upcoming
        return True

    def take(self, changes: Changes) -> None:
        """See which sessions have ended, that each had to, and let go of what it held."""
        for session, reason in changes.ended:
            claim = self.claims.pop(session.id)
            if reason is EndReason.EXPIRED:
                assert session.ttl_s
                assert self.now >= claim.renewed_at + session.ttl_s
            elif reason is EndReason.INVALIDATED:
                # Or it was critical for a moment within one event: judged, and removed.
                assert any(item in {None, Health.CRITICAL} for item in changes.checks.values())
            for key, held in [*self.keys.items()]:
                if held.session != session.id:
                    continue
                if session.lock_delay_s:
                    self.delays[key] = self.now, session.lock_delay_s
                if session.behavior is Behavior.DELETE:
                    del self.keys[key]
                else:
                    self.keys[key] = replace(held, session="")

    def pick(self, drawn: int) -> str:
        return sorted(self.claims)[drawn % len(self.claims)]

    # What holds.

    @invariant()
    def every_lock_is_as_in_the_model_and_its_holder_is_alive(self) -> None:
        if not hasattr(self, "registry"):
            return
        entries, _ = self.state.keys.list_below("")
        assert {entry.key: Key(entry.value, entry.lock_index, entry.session) for entry in entries} == self.keys
        assert {entry.session for entry in entries if entry.session} <= {*self.state.sessions.by_id}
        for claim in self.claims.values():
            held = {key for key, item in self.keys.items() if item.session == claim.session.id}
            assert self.state.keys.held_by(claim.session.id) == held
        assert self.state.keys.held == sum(bool(item.session) for item in self.keys.values())

    @invariant()
    def a_session_is_there_for_as_long_as_it_must_and_not_much_longer(self) -> None:
        if not hasattr(self, "registry"):
            return
        assert {*self.state.sessions.by_id} == {*self.claims}
        for claim in self.claims.values():
            session = claim.session
            assert not session.ttl_s or self.now <= claim.renewed_at + 2 * session.ttl_s
            for check_id in session.service_checks or ():
                assert self.registry.verdict_on(OWN_NODE, check_id) not in {None, Health.CRITICAL}
        assert {item.id for item in self.state.sessions.list_on(OWN_NODE)} == {*self.claims}

    @invariant()
    def no_index_and_no_fencing_value_goes_back(self) -> None:
        if not hasattr(self, "registry"):
            return
        readings = {"all": self.registry.index, "sessions": self.state.sessions.index}
        readings |= {f"prefix {prefix}": self.state.keys.list_below(prefix)[1] for prefix in ("", "k", "k/", "l")}
        for what, index in readings.items():
            assert index >= self.indexes.get(what, 0), f"{what} went back"
            assert index <= self.registry.index
        self.indexes = readings
        for key, seen in self.fences.items():
            assert key not in self.keys or self.keys[key].lock_index >= seen or self.keys[key].lock_index <= 1
        self.fences = {key: item.lock_index for key, item in self.keys.items()}


def lock(before: Key | None, value: bytes, session_id: str) -> Key:
    if before is None:
        return Key(value, 1, session_id)
    return Key(value, before.lock_index + (before.session != session_id), session_id)


TestLockLife = LockLife.TestCase
TestLockLife.settings = settings(max_examples=100, stateful_step_count=50, deadline=None, derandomize=True)
