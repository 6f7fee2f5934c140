"""Who has used up how much of an allowance: GCRA over a table of fixed size, of one worker or shared by all.

The generic cell rate algorithm (ITU-T I.371, "virtual scheduling") needs one number for each key: the theoretical
arrival time of the next request. A request moves it on by one interval; one that would move it further ahead of now
than the burst allows is refused and changes nothing. So an allowance refills evenly, and nothing is done for keys that
nobody uses.

The table is an array of (fingerprint, time) pairs in buckets of eight: millions of keys take the memory of the table
and not more, and only pages that are used exist. A key whose time has passed is as good as none, so its place is free.
If a bucket is full of keys in use, the one that is nearest to free makes room: it starts anew, which errs towards
serving.

Shared, a bucket is changed under a lock of its bytes (POSIX record locks), so what several workers admit together is
exact; the kernel takes the lock away from a worker that dies. Times are CLOCK_MONOTONIC's, which is one for the
machine.
"""

import mmap
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from os import sched_yield
from time import sleep
from typing import Final

WAYS: Final = 8
ENTRY_BYTES: Final = 16
DEFAULT_ENTRIES: Final = 1 << 22
"""64 MiB if every page of it is used."""
_BUCKET_BYTES: Final = WAYS * ENTRY_BYTES
_BUCKET_WORDS: Final = _BUCKET_BYTES // 8
_TRY: Final = LOCK_EX | LOCK_NB
_SPINS: Final = 16
_PAUSE_S: Final = 0.00005
_ATTEMPTS: Final = 500
"""A lock is held for two microseconds, and for longer only by a worker that lost its processor meanwhile. It is waited
for as long as it takes to try so often, which is about 50 ms; counted, since on a machine that stood still nobody had
the time to let go. Waiting holds up everybody's requests, so it is done once: while the lock is still away, it is not
waited for again."""
_ROUNDING_S: Final = 1e-9


class Allowances:
    """The table.

    Args:
        entries: Keys it has room for, a power of two.
        descriptor: A file of `size_of(entries)` bytes that others map too; the worker's own memory if left out.

    Attributes:
        contended: How often a bucket's lock could not be had in time, and it was changed without.
        crowded: How often a key in use had to make room.
    """

    def __init__(self, entries: int = DEFAULT_ENTRIES, descriptor: int | None = None) -> None:
        if entries < WAYS or entries & (entries - 1):
            raise ValueError("entries is a power of two, and at least 8")
        self.contended = 0
        self.crowded = 0
        self._mask = entries // WAYS - 1
        self._descriptor = descriptor
        self._gave_up = False
        # The same memory twice: a key is at an even place of the one, its time at the odd one after it in the other.
        memory = memoryview(mmap.mmap(-1 if descriptor is None else descriptor, size_of(entries)))
        self._keys = memory.cast("Q")
        self._times = memory.cast("d")

    def take(self, key: int, interval_s: float, burst_s: float, now: float) -> float:
        """Take one from the allowance of `key`, if there is one left.

        Args:
            key: 64 bits that stand for it (`toska_common.balancing.base.hash_of`).
            interval_s: Seconds in which one more becomes available.
            burst_s: Seconds that the whole allowance takes to refill: as many intervals as may be taken at once.
            now: Monotonic seconds.

        Returns:
            The slack in seconds: divided by the interval, how many are left. Negative if none was: so long until
            there is one.
        """
        first = (key & self._mask) * _BUCKET_WORDS
        descriptor = self._descriptor
        if descriptor is None:
            return self._take(first, key, interval_s, burst_s, now)
        try:
            lockf(descriptor, _TRY, _BUCKET_BYTES, first * 8)
        except OSError:
            if not self._wait_for_lock(descriptor, first * 8):
                return self._take(first, key, interval_s, burst_s, now)
        try:
            return self._take(first, key, interval_s, burst_s, now)
        finally:
            # It is the only one that we hold, and to let go of all spares the kernel what a part may leave over.
            lockf(descriptor, LOCK_UN)

    def give_back(self, key: int, interval_s: float) -> None:
        """Return what was taken, since the request was not served after all."""
        first = (key & self._mask) * _BUCKET_WORDS
        descriptor = self._descriptor
        locked = descriptor is not None and self._wait_for_lock(descriptor, first * 8)
        try:
            place = self._find(first, key)
            if place >= 0:
                self._times[place + 1] -= interval_s
        finally:
            if locked and descriptor is not None:
                lockf(descriptor, LOCK_UN)

    def _take(self, first: int, key: int, interval_s: float, burst_s: float, now: float) -> float:
        times = self._times
        # Most buckets hold few keys, so it stands at the beginning, if anywhere.
        place = first if self._keys[first] == key else self._find(first, key)
        due = now
        if place >= 0:
            known = times[place + 1]
            if known > now:
                due = known
        slack = now + burst_s - due - interval_s
        if slack < -_ROUNDING_S:
            return slack
        if place < 0:
            place = self._make_room(first, now)
            self._keys[place] = key
        times[place + 1] = due + interval_s
        return slack if slack > 0.0 else 0.0

    def _find(self, first: int, key: int) -> int:
        """The place of a key in its bucket, or -1."""
        keys = self._keys
        for place in range(first, first + _BUCKET_WORDS, 2):
            if keys[place] == key:
                return place
        return -1

    def _make_room(self, first: int, now: float) -> int:
        times = self._times
        place = min(range(first, first + _BUCKET_WORDS, 2), key=lambda place: times[place + 1])
        if times[place + 1] > now:
            self.crowded += 1
        return place

    def _wait_for_lock(self, descriptor: int, start: int) -> bool:
        for attempt in range(1 if self._gave_up else _ATTEMPTS):
            try:
                lockf(descriptor, _TRY, _BUCKET_BYTES, start)
            except OSError:
                if attempt < _SPINS:
                    sched_yield()  # to whoever holds it
                else:
                    sleep(_PAUSE_S)  # whoever holds it has no processor, and gets none from those that spin
            else:
                self._gave_up = False
                return True
        self._gave_up = True
        self.contended += 1
        return False


def size_of(entries: int) -> int:
    """Bytes of a table."""
    return entries * ENTRY_BYTES
