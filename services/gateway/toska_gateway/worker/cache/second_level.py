"""Responses that all gateways with the same `TOSKA_CACHE_URL=redis://…` share, behind each worker's own.

    apart ──connected──▶ shared ──an answer that is late──▶ shared (whoever waited goes on to the upstream)
      ▲                     └──connection lost, or silent for a second──┐
      └──────────────────────── after a growing pause ◀─────────────────┘

A worker asks here what it does not have, and waits for `server.cache.shared_wait` at most; it never asks while Redis is
away, and storing is waited for by nobody. Of each URL Redis holds one hash, so that a change of it is one deletion: `v`
and a digest of a key name the fields that Vary names, `e` and a digest of the whole key hold the response. What a purge
ends that names a route, or everything, is told by a time: what was stored before it is not there.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from toska_common.clock import now_utc

from toska_gateway.worker.cache.entry import Entry
from toska_gateway.worker.cache.vary import variant_key
from toska_gateway.worker.cache.wire import Damaged, pack, unpack
from toska_gateway.worker.http1 import RequestHead
from toska_gateway.worker.redis_link import GIVE_UP_S, RedisLink

if TYPE_CHECKING:
    from toska_gateway.worker.plane import Plane

_READS, _WRITES = 64, 16
_MOST_WAITING_BYTES: Final = 8 << 20
"""Of responses that are still to be stored; what comes beyond that is kept by its worker alone."""
_PREFIX: Final = b"toska:cache:1:"
_PURGES: Final = _PREFIX + b"purges"
_EVERYTHING: Final = b"*"
_STORE: Final = """
if redis.call('HLEN', KEYS[1]) > 64 then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
local life = tonumber(ARGV[1])
if redis.call('PTTL', KEYS[1]) < life then redis.call('PEXPIRE', KEYS[1], life) end
"""
"""A URL with ever more variants begins anew."""

Answer = Callable[[Entry | None], None]


class Question:
    """One request's, under way.

    Attributes:
        url: What is asked for.
        primary: The key, but for Vary.
        route: For which it has to have been stored.
        head: Of the request.
        field: Where the response stands in the URL's hash.
        timer: When nobody waits any longer.
    """

    __slots__ = ("_answer", "field", "head", "primary", "route", "timer", "url")

    def __init__(self, url: bytes, primary: bytes, route: str, head: RequestHead, answer: Answer) -> None:
        self.url = url
        self.primary = primary
        self.route = route
        self.head = head
        self.field = _field(b"e", primary)
        self.timer: asyncio.TimerHandle | None = None
        self._answer: Answer | None = answer

    @property
    def is_open(self) -> bool:
        """Whether somebody still wants to know."""
        return self._answer is not None

    def cancel(self) -> None:
        """Whoever asked no longer wants to know."""
        self._answer = None
        if self.timer is not None:
            self.timer.cancel()

    def settle(self, entry: Entry | None) -> None:
        """Answer, once."""
        answer = self._answer
        self.cancel()
        if answer is not None:
            answer(entry)


class SecondLevel(RedisLink):
    """A worker's way to it.

    Attributes:
        shared: Whether Redis answers; else nothing is asked.
    """

    def __init__(self, plane: "Plane") -> None:
        super().__init__(plane.loop, plane.cache_url, _STORE, "cache", plane.tell)
        self._plane = plane
        self._questions: deque[Question] = deque()
        self._asked: Sequence[Question] = ()
        self._writes: deque[_Write] = deque()
        self._waiting_bytes = 0
        self._wanted = asyncio.Event()

    # -- what a worker asks of it

    def find(self, url: bytes, primary: bytes, route: str, head: RequestHead, answer: Answer) -> Question:
        """Look for the response to a request; `answer` is called in a later turn of the loop, and soon."""
        question = Question(url, primary, route, head, answer)
        question.timer = self._plane.loop.call_later(self._plane.cache_wait_s, self._settle, question, None, "late")
        self._questions.append(question)
        self._wanted.set()
        return question

    def keep(self, entry: Entry) -> None:
        """Store a response, some time soon, for as long as it is of use."""
        now = self._plane.now
        life_s = entry.ttl(now) + max(entry.stale_while_revalidate_s, entry.stale_if_error_s)
        size = len(entry.body) + len(entry.head)
        if life_s < 1 or not self.shared or self._waiting_bytes + size > _MOST_WAITING_BYTES:
            return
        fields: list[bytes] = [_field(b"e", entry.key), pack(entry, now, now_utc().timestamp())]
        if entry.vary:
            fields += [_field(b"v", entry.primary), b",".join(entry.vary)]
        self._write(_Write(size, (_place(entry.url),), (int(life_s * 1000), *fields)))

    def forget(self, url: bytes) -> None:
        """Forget a URL, for all gateways."""
        self._write(_Write(0, ("UNLINK", _place(url)), None))

    def purge(self, route: str = "") -> None:
        """Forget what was stored for a route until now, or everything."""
        self._write(_Write(0, ("HSET", _PURGES, _purge_field(route), repr(now_utc().timestamp())), None))

    def _write(self, write: "_Write") -> None:
        if self.shared:
            self._waiting_bytes += write.size
            self._writes.append(write)
            self._wanted.set()

    def _settle(self, question: Question, entry: Entry | None, outcome: str) -> None:
        if question.is_open:
            stats = self._plane.stats
            name = f"cache_shared_{outcome}"
            setattr(stats, name, getattr(stats, name) + 1)
            question.settle(entry)

    # -- the connection

    async def _probe(self, script: Any) -> None:
        await script(keys=[_PREFIX + b"probe"], args=[1000, "f", "x"])

    async def _converse(self, client: Any, script: Any) -> None:
        while True:
            await self._wanted.wait()
            questions = self._asked = [question for question in _taken(self._questions, _READS) if question.is_open]
            writes = _taken(self._writes, _WRITES)
            if not self._questions and not self._writes:
                self._wanted.clear()
            pipeline = client.pipeline(transaction=False)
            for question in questions:
                pipeline.hmget(_place(question.url), question.field, _field(b"v", question.primary))
            if questions:
                pipeline.hgetall(_PURGES)
            for write in writes:
                self._waiting_bytes -= write.size
                if write.stored is None:
                    pipeline.execute_command(*write.words)
                else:
                    await script(keys=list(write.words), args=list(write.stored), client=pipeline)
            async with asyncio.timeout(GIVE_UP_S):
                replies: list[Any] = await pipeline.execute()
            self._asked = ()
            purges: dict[bytes, bytes] = replies[len(questions)] if questions else {}
            for question, (data, names) in zip(questions, replies, strict=False):
                self._take(question, data, names, purges)

    def _take(self, question: Question, data: bytes | None, names: bytes | None, purges: dict[bytes, bytes]) -> None:
        """What came for a question: a response, nothing, or the fields that say which response it is."""
        if names:
            field = _field(b"e", variant_key(question.primary, tuple(names.split(b",")), question.head))
            if field != question.field and question.is_open:
                question.field = field
                self._questions.append(question)
                self._wanted.set()
                return
        entry, outcome = self._read(question, data, purges)
        self._plane.loop.call_soon(self._settle, question, entry, outcome)

    def _read(self, question: Question, data: bytes | None, purges: dict[bytes, bytes]) -> tuple[Entry | None, str]:
        if data is None:
            return None, "misses"
        try:
            wall = now_utc().timestamp()
            entry, stored_at = unpack(data, self._plane.now, wall)
            entry.shared_at = monotonic() - (wall - stored_at)
            purged_at = max(float(purges.get(field, 0)) for field in (_EVERYTHING, _purge_field(question.route)))
        except (Damaged, ValueError):
            return None, "damaged"
        # Whoever can write there could put a response anywhere: it has to say itself what it answers.
        primary = question.primary
        key = variant_key(primary, entry.vary, question.head) if entry.vary else primary
        if (entry.url, entry.primary, entry.key, entry.route) != (question.url, primary, key, question.route):
            return None, "damaged"
        return (entry, "hits") if stored_at > purged_at else (None, "misses")

    def _go_on_alone(self) -> None:
        """Nobody goes on waiting; what was to be stored is not."""
        questions = [*self._asked, *self._questions]
        self._asked = ()
        self._questions.clear()
        self._writes.clear()
        self._waiting_bytes = 0
        self._wanted.clear()
        for question in questions:
            self._plane.loop.call_soon(self._settle, question, None, "late")


class _Write:
    """Something to be done there: a command, or with `stored` the script's key and arguments."""

    __slots__ = ("size", "stored", "words")

    def __init__(self, size: int, words: tuple[Any, ...], stored: tuple[Any, ...] | None) -> None:
        self.size = size
        self.words = words
        self.stored = stored


T = TypeVar("T")


def _taken(queue: deque[T], most: int) -> list[T]:
    """The first few of a queue, taken out of it."""
    return [queue.popleft() for _ in range(min(most, len(queue)))]


def _place(url: bytes) -> bytes:
    return _PREFIX + blake2b(url, digest_size=16).hexdigest().encode()


def _field(kind: bytes, key: bytes) -> bytes:
    return kind + blake2b(key, digest_size=16).digest()


def _purge_field(route: str) -> bytes:
    return b"r" + route.encode() if route else _EVERYTHING
