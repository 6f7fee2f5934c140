"""What clients do in cases."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from toska_tests.codings import decode
from toska_tests.conformance.case import NOTHING, Wants, check
from toska_tests.conformance.stage import Stage
from toska_tests.raw_http import Message
from toska_tests.waiting import wait_until


@dataclass(frozen=True)
class Ask:
    """Send a request, and look at what the upstream saw and what came back.

    Attributes:
        send: The request, as bytes.
        status: Of the answer.
        by: The upstream that sees it, and nobody else does; empty: nobody.
        seen: How often `by` sees it.
        target: What the upstream is asked for.
        method: By which method.
        sees: What fields the upstream sees.
        takes: What body the upstream sees.
        gets: What fields the client gets.
        body: What body the client gets.
        decoded: Likewise, once its content coding is undone.
        error: The code of a problem that the engine answers itself, and which nobody sees unless `by` says so.
        closes: Whether the engine closes the connection after it.
        fresh: On a connection of its own.
    """

    send: bytes
    status: int = 200
    by: str | None = None
    seen: int = 1
    target: str | None = None
    method: str | None = None
    sees: Wants = field(default_factory=lambda: NOTHING)
    takes: bytes | None = None
    gets: Wants = field(default_factory=lambda: NOTHING)
    body: bytes | None = None
    decoded: bytes | None = None
    error: str | None = None
    closes: bool = False
    fresh: bool = False

    async def play(self, stage: Stage) -> None:
        stage.news()
        client = await stage.client(fresh=self.fresh)
        answer = await client.ask(self.send, to=self.send.split(b" ", 1)[0].decode())
        news = stage.news()
        self._check_answer(answer)
        by = "" if self.by is None and self.error is not None else self.by
        if by is not None:
            assert news == ({by: self.seen} if by else {}), f"seen by {news}"
        if by or (by is None and len(news) == 1):
            self._check_seen(stage.upstreams[by or next(iter(news))].requests[-1])
        if not self.closes and answer.value("connection") == b"close":
            await stage.hang_up()
        if self.closes:
            assert await client.is_closed(), "the connection stays open"
            await stage.hang_up()

    def _check_answer(self, answer: Message) -> None:
        assert answer.status == self.status, f"{answer.head!r} {answer.body[:300]!r}"
        check(
            "the answer's x-toska-error",
            answer.values("x-toska-error"),
            None if self.error is None else self.error.encode(),
        )
        if self.error is not None and answer.body:
            assert answer.value("content-type") == b"application/problem+json"
            problem = json.loads(answer.body)
            assert (problem["status"], problem["type"]) == (self.status, f"/problems/{self.error}")
        for name, want in self.gets.items():
            check(f"the answer's {name}", answer.values(name), want)
        if self.body is not None:
            assert answer.body == self.body
        if self.decoded is not None:
            coding = answer.value("content-encoding") or b""
            assert decode(coding.decode(), answer.body) == self.decoded

    def _check_seen(self, seen: Message) -> None:
        if self.target is not None:
            assert seen.target == self.target
        if self.method is not None:
            assert seen.method == self.method
        for name, want in self.sees.items():
            check(f"what the upstream sees as {name}", seen.values(name), want)
        if self.takes is not None:
            assert seen.body == self.takes


@dataclass(frozen=True)
class Spread:
    """Send many requests, and count who saw them.

    Attributes:
        send: The request; or what makes the one of a number, from 0.
        times: How many.
        shares: By upstream: the fewest and the most that it may see. Nobody else sees any.
    """

    send: bytes | Callable[[int], bytes]
    times: int
    shares: Mapping[str, tuple[int, int]]

    async def play(self, stage: Stage) -> None:
        stage.news()
        for number in range(self.times):
            client = await stage.client()
            send = self.send if isinstance(self.send, bytes) else self.send(number)
            answer = await client.ask(send)
            assert answer.status == 200, f"{answer.head!r} {answer.body[:300]!r}"
        news = stage.news()
        for name, (fewest, most) in self.shares.items():
            assert fewest <= news.get(name, 0) <= most, f"{name} saw {news.get(name, 0)} of {self.times}: {news}"
        assert set(news) <= set(self.shares), f"others saw some, too: {news}"


@dataclass(frozen=True)
class Alike:
    """Send requests that belong together, and see them go to one upstream, by group.

    Attributes:
        group: Makes a request of a group's number.
        groups: How many groups.
        upstreams: The fewest upstreams that the groups together reach.
    """

    group: Callable[[int], bytes]
    groups: int = 24
    upstreams: int = 2

    async def play(self, stage: Stage) -> None:
        reached: set[str] = set()
        for number in range(self.groups):
            stage.news()
            for _ in range(3):
                client = await stage.client(fresh=True)
                assert (await client.ask(self.group(number))).status == 200
            news = stage.news()
            assert len(news) == 1, f"group {number} was split: {news}"
            reached |= set(news)
        assert len(reached) >= self.upstreams, f"everything went to {reached}"


@dataclass(frozen=True)
class ComeBack:
    """Ask, and come back with the cookie that was given: the same upstream each time.

    Attributes:
        send: The request, which ends with an empty line.
        cookie: Its name.
    """

    send: bytes
    cookie: bytes

    async def play(self, stage: Stage) -> None:
        stage.news()
        answer = await (await stage.client(fresh=True)).ask(self.send)
        (home,) = stage.news()
        given = [value for value in answer.values("set-cookie") if value.startswith(self.cookie + b"=")]
        assert len(given) == 1, f"cookies: {answer.values('set-cookie')}"
        back = self.send[:-2] + b"cookie: " + given[0].split(b";")[0] + b"\r\n\r\n"
        for _ in range(12):
            again = await (await stage.client(fresh=True)).ask(back)
            assert again.status == 200
            assert stage.news() == {home: 1}


@dataclass(frozen=True)
class Pipeline:
    """Send several requests at once, and read their answers in order.

    Attributes:
        sends: The requests.
        bodies: Of the answers.
    """

    sends: tuple[bytes, ...]
    bodies: tuple[bytes, ...]

    async def play(self, stage: Stage) -> None:
        client = await stage.client()
        await client.send(b"".join(self.sends))
        assert tuple([(await client.response()).body for _ in self.sends]) == self.bodies


@dataclass(frozen=True)
class Tunnel:
    """Switch protocols, and send bytes to an upstream that sends them back.

    Attributes:
        send: The request.
        payloads: What goes both ways afterwards.
    """

    send: bytes
    payloads: tuple[bytes, ...]

    async def play(self, stage: Stage) -> None:
        client = await stage.client(fresh=True)
        answer = await client.ask(self.send)
        assert answer.status == 101
        assert (answer.value("upgrade") or b"").lower() == b"websocket"
        for payload in self.payloads:
            client.post(payload)
            assert await client.exactly(len(payload)) == payload
        await stage.hang_up()


@dataclass(frozen=True)
class Copied:
    """Send a request, and see a copy of it arrive somewhere else.

    Attributes:
        send: The request.
        by: The upstream that answers.
        shadow: The upstream that gets the copy.
        target: What both are asked for.
        sees: What fields both see.
        takes: What body both see.
    """

    send: bytes
    by: str
    shadow: str
    target: str | None = None
    sees: Wants = field(default_factory=lambda: NOTHING)
    takes: bytes = b""

    async def play(self, stage: Stage) -> None:
        before = {name: len(stage.upstreams[name].requests) for name in (self.by, self.shadow)}
        client = await stage.client()
        answer = await client.ask(self.send)
        assert answer.status == 200
        for name, mark in ((self.by, None), (self.shadow, b"true")):
            requests = stage.upstreams[name].requests
            await wait_until(_arrived(requests, before[name], self.takes), what=f"{name} has the request, whole")
            assert len(requests) == before[name] + 1
            assert self.target in (None, requests[-1].target)
            check(f"the mark of what {name} sees", requests[-1].values("x-toska-mirror"), mark)
            for field_name, want in self.sees.items():
                check(f"what {name} sees as {field_name}", requests[-1].values(field_name), want)


def _arrived(requests: list[Message], before: int, body: bytes) -> Callable[[], bool]:
    return lambda: len(requests) > before and requests[-1].body == body


@dataclass(frozen=True)
class Announced:
    """Send a request's head and wait to be asked for its body.

    Attributes:
        head: With `Expect: 100-continue`.
        body: Sent once asked for.
    """

    head: bytes
    body: bytes

    async def play(self, stage: Stage) -> None:
        client = await stage.client(fresh=True)
        await client.send(self.head)
        asked = await client.head()
        assert asked.status == 100, f"{asked.head!r}"
        answer = await client.ask(self.body)
        assert answer.status == 200
        assert [one.body for name in stage.news() for one in stage.upstreams[name].requests[-1:]] == [self.body]


@dataclass(frozen=True)
class FirstBytes:
    """See the beginning of a body while its end has not been made yet.

    Attributes:
        send: The request.
        begins: What has to come at once.
    """

    send: bytes
    begins: bytes

    async def play(self, stage: Stage) -> None:
        client = await stage.client(fresh=True)
        await client.send(self.send)
        head = await client.head()
        assert head.status == 200
        seen = b""
        while self.begins not in seen:
            more = await client.some()
            assert more, f"ended after {seen!r}"
            seen += more
        await stage.hang_up()


@dataclass(frozen=True)
class Eventually:
    """Ask until the answers are as they have to be: what the engine finds out by itself takes a moment.

    Attributes:
        send: The request, which may be sent often.
        by: The only upstream that answers any of ten in a row.
    """

    send: bytes
    by: str

    async def play(self, stage: Stage) -> None:
        async def settled() -> bool:
            # By what answers say: health checks ask upstreams, too.
            answers = [await (await stage.client()).ask(self.send) for _ in range(10)]
            by = {answer.value("x-served-by") for answer in answers}
            return by == {self.by.encode()} and {answer.status for answer in answers} == {200}

        await wait_until(settled, what=f"only {self.by} answers")
