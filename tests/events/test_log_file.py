"""The event log's file: what is stored, what is removed, and what is refused."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from toska_common.clock import now_utc
from toska_common.errors import ConfigurationError
from toska_common.events.embedded.records import Publication, encode_head
from toska_common.events.errors import EventRefused, LogFull
from toska_common.events.event import Event
from toska_events.log.file import LogFile
from toska_events.log.reading import LogReading
from toska_events.log.rows import Changes, Dead, GroupRow, Held
from toska_events.log.schema import locked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture
def file(path: Path) -> Iterator[LogFile]:
    opened = LogFile.open(path, max_bytes=8 << 20)
    yield opened
    opened.close()


def publication(name: str, topic: str = "a.b", data: bytes = b"{}", **more: int) -> Publication:
    head = encode_head(Event(topic=topic, source="/s", id=name, time=now_utc()))
    return Publication(topic, head, data, more.get("priority", 1), 0, more.get("expires", 0))


def offsets(file: LogFile) -> list[int]:
    reading = LogReading(file.path)
    try:
        topics = [topic.id for topic in file.topics.all()]
        found = reading.after(0, file.head, topics, priority=None, limit=100_000, max_bytes=1 << 30)
        return [row.offset for row in found.rows]
    finally:
        reading.close()


@pytest.mark.parametrize("count", [1, 2, 3, 127, 128, 129, 300])
def test_offsets_count_up_whatever_the_size_of_a_batch(file: LogFile, count: int) -> None:
    assert [row.offset for row in file.append([publication("first")], 1)] == [1]
    rows = file.append([publication(f"n{number}") for number in range(count)], 2)
    assert [row.offset for row in rows] == list(range(2, count + 2))
    assert offsets(file) == list(range(1, count + 2))


def test_doubles_of_late_are_left_out_also_after_a_restart(file: LogFile, path: Path) -> None:
    assert len(file.append([publication("x"), publication("x"), publication("y")], 1)) == 2
    assert file.append([publication("y")], 2) == []
    file.close()
    again = LogFile.open(path)
    assert [row.offset for row in again.append([publication("x"), publication("z")], 3)] == [3]
    again.close()


def test_an_event_that_is_handed_on_under_another_topic_is_no_double(file: LogFile) -> None:
    first = publication("x")
    handed_on = Publication("elsewhere", first.head.replace(first.topic.encode(), b"elsewhere", 1), first.data, 1, 0, 0)
    assert len(file.append([first, handed_on, handed_on], 1)) == 2


def test_offsets_are_never_given_out_again(file: LogFile, path: Path) -> None:
    file.append([publication(str(number)) for number in range(5)], 1)
    (topic,) = file.topics.all()
    file.remove(topic.id, 5, 100, [], after=0, limit=100, enough=None)
    assert offsets(file) == []
    file.close()
    again = LogFile.open(path)
    assert again.head == 5
    assert [row.offset for row in again.append([publication("next")], 2)] == [6]
    again.close()


def test_moments_never_go_back_when_the_clock_does(file: LogFile) -> None:
    assert [row.at for row in file.append([publication("x")], 100)] == [100]
    assert [row.at for row in file.append([publication("y")], 50)] == [100]
    reading = LogReading(file.path)
    assert reading.first_since(100, file.head) == 1
    assert reading.first_since(101, file.head) == 3
    reading.close()


def test_what_is_held_or_in_hand_outlives_every_age(file: LogFile) -> None:
    file.append([publication(str(number)) for number in range(6)], 1)
    group = GroupRow(0, "g", ("#",), False, 3, (6, 6, 6))
    file.make_group(group)
    file.save(Changes(held=[Held(group.id, 2, 10**18, 1, blocks=False, reason="")]))
    (topic,) = file.topics.all()
    file.remove(topic.id, upto=5, before=10**18, kept=[4], after=0, limit=100, enough=None)
    assert offsets(file) == [2, 4, 6]
    assert (topic.events, topic.published) == (3, 6)


def test_counts_are_right_after_a_kill(file: LogFile, path: Path) -> None:
    file.append([publication("x", data=b"12345")], 1)
    file.save(Changes())
    file.append([publication("y"), publication("z", topic="c")], 2)
    (a, c) = sorted(file.topics.all(), key=lambda topic: topic.name)
    expected = [(one.name, one.events, one.published, one.bytes, one.last_at) for one in (a, c)]
    # Not closed: the counts of the second append are not stored.
    again = LogFile.open(path)
    found = sorted(again.topics.all(), key=lambda topic: topic.name)
    assert [(one.name, one.events, one.published, one.bytes, one.last_at) for one in found] == expected
    again.close()


def test_a_full_log_refuses_whole_batches_goes_on_settling_and_takes_more_once_there_is_room(file: LogFile) -> None:
    group = GroupRow(0, "g", ("#",), False, 3, (0, 0, 0))
    file.make_group(group)
    stored = 0
    with pytest.raises(LogFull):
        for number in range(1000):
            batch = [publication(f"{number}-{one}", data=os.urandom(5000)) for one in range(10)]
            stored += len(file.append(batch, number))
    assert offsets(file) == list(range(1, stored + 1))
    assert file.room.used_bytes <= file.room.max_bytes
    head = file.head
    assert len(file.append([publication("small")], 2)) <= 1 or file.head > head
    file.save(Changes(held=[Held(group.id, 1, 5, 1, blocks=False, reason="x" * 2000)]))
    file.save(Changes(dead=[Dead(group.id, 2, "a.b", publication("d").head, b"x" * 50_000, "no", 1, 5)]))
    (topic,) = file.topics.all()
    removed, _ = file.remove(topic.id, head, 10**18, [], after=0, limit=1000, enough=2 << 20)
    assert removed >= 2 << 20
    assert len(file.append([publication(f"again-{one}", data=b"x" * 5000) for one in range(10)], 3)) == 10


def test_a_refused_event_may_be_published_once_there_is_room(file: LogFile) -> None:
    large = publication("large", data=b"x" * (9 << 20))
    with pytest.raises(LogFull):
        file.append([publication("with"), large, publication("new topic", topic="other")], 1)
    assert file.topics.find("other") is None
    assert [row.offset for row in file.append([publication("with")], 2)] == [1]


def test_a_topic_for_each_event_is_refused_before_it_does_harm(path: Path) -> None:
    with closing(LogFile.open(path, max_topics=5)) as file:
        file.append([publication(str(number), topic=f"order-{number}") for number in range(5)], 1)
        with pytest.raises(EventRefused, match="belongs into its subject or key"):
            file.append([publication("known", topic="order-1"), publication("new", topic="order-5")], 2)
        assert [row.offset for row in file.append([publication("known", topic="order-1")], 3)] == [6]
        with pytest.raises(EventRefused):
            file.put_topic("another", "{}", 0)
        assert len(file.topics.all()) == 5


def test_a_disk_without_room_is_a_full_log_and_nothing_is_broken(tmp_path: Path) -> None:
    # A limit on files' sizes is as good as a full disk, and needs no disk: writing beyond it fails.
    program = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_log_file import publication
from toska_common.events.errors import LogFull
from toska_events.log.file import LogFile
file = LogFile.open(Path(sys.argv[1]), max_bytes=1 << 30)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
stored = 0
try:
    for number in range(10_000):
        stored += len(file.append([publication(f"{number}-{one}", data=b"x" * 3000) for one in range(7)], number))
except LogFull:
    print("full", stored)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("again", len(file.append([publication("after")], 10**6)), file.head == stored + 1)
"""
    here = Path(__file__).parent
    command = [sys.executable, "-c", program, str(tmp_path / "log.sqlite"), str(here)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    full, again = result.stdout.splitlines()
    assert full.startswith("full ")
    stored = int(full.split()[1])
    assert stored > 0
    assert stored % 7 == 0
    assert again == "again 1 True"
    reopened = LogFile.open(tmp_path / "log.sqlite")
    assert offsets(reopened) == list(range(1, stored + 2))
    reopened.close()


def test_a_write_that_was_torn_off_is_not_there_and_the_rest_is(file: LogFile, path: Path) -> None:
    file.append([publication("whole")], 1)
    wal = path.with_name(path.name + "-wal")
    before = wal.stat().st_size
    file.append([publication("torn", data=b"y" * 20_000)], 2)
    content = wal.read_bytes()
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    for end in (before + 1, before + 5000, len(content) - 100):
        copy.with_name("copy.sqlite-wal").write_bytes(content[:end])
        opened = LogFile.open(copy)
        assert opened.head == 1
        assert offsets(opened) == [1]
        assert [row.offset for row in opened.append([publication("next")], 3)] == [2]
        opened._connection.close()  # pyright: ignore[reportPrivateUsage] - as a killed process leaves it
        copy.write_bytes(path.read_bytes())
        copy.with_name("copy.sqlite-shm").unlink(missing_ok=True)


def test_a_broken_file_is_an_error_that_names_it_and_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    first = LogFile.open(path)
    first.append([publication(str(number), data=os.urandom(2000)) for number in range(200)], 1)
    first.close()
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 12] = b"\xa5" * 4096 * 11
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"log\.sqlite is broken .* nothing of it was changed"):
        LogFile.open(path)
    assert path.read_bytes() == content
    path.write_bytes(b"what is this" * 1000)
    with pytest.raises(ConfigurationError, match="is broken"):
        LogFile.open(path)
    assert path.read_bytes() == b"what is this" * 1000


def test_a_file_of_a_later_version_or_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    newer = tmp_path / "log.sqlite"
    LogFile.open(newer).close()
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigurationError, match="is of version 99, and this program knows 1"):
        LogFile.open(newer)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE precious (x)")
    connection.close()
    with pytest.raises(ConfigurationError, match="is a database of something else"):
        LogFile.open(other)
    connection = sqlite3.connect(other)
    assert connection.execute("SELECT count(*) FROM precious").fetchone() == (0,)
    connection.close()


def test_only_one_process_opens_a_log_and_the_other_is_told_which_one_has_it(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "events"),
        pytest.raises(ConfigurationError, match=f"open in another process \\(pid {os.getpid()}\\)"),
        locked(tmp_path / "events"),
    ):
        pass
    with locked(tmp_path / "events"):
        pass


def test_the_file_is_its_owners_alone(file: LogFile, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
