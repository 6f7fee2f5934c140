"""Filters that do everything a filter can do wrong, and some that do right; imported by workers, not by tests."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from toska_common.filters import Answer, BodyFilter, Filter, Reject, Request, Response

SECRET = "the-secret-that-no-log-may-hold"


@dataclass
class Named:
    """Which one it is."""

    name: str = "x"


class Trace(Filter):
    """Writes its name into requests and responses, in the order in which it is asked."""

    settings: Named

    def on_request(self, request: Request) -> None:
        request.headers["x-trace"] = request.headers.get("x-trace", "") + self.settings.name

    def on_response(self, response: Response) -> None:
        response.headers["x-trace"] = response.headers.get("x-trace", "") + self.settings.name


class SlowTrace(Filter):
    """The same, and waits in between."""

    settings: Named

    async def on_request(self, request: Request) -> None:
        await asyncio.sleep(0.01)
        request.headers["x-trace"] = request.headers.get("x-trace", "") + self.settings.name

    async def on_response(self, response: Response) -> None:
        await asyncio.sleep(0.01)
        response.headers["x-trace"] = response.headers.get("x-trace", "") + self.settings.name


class Count(Filter):
    """Counts in its instance."""

    def __init__(self, settings: None) -> None:
        super().__init__(settings)
        self._count = 0

    def on_request(self, request: Request) -> None:
        self._count += 1
        request.headers["x-count"] = str(self._count)


class Tenant(Filter):
    """Has the upstream answer by a header."""

    def on_request(self, request: Request) -> None:
        request.headers["x-tenant"] = request.variant = request.headers["x-who"]


class Recall(Filter):
    """Tells with the response what the request was."""

    def on_request(self, request: Request) -> None:
        request.headers["x-added"] = "1"

    def on_response(self, response: Response) -> None:
        response.headers["x-recall"] = ",".join(sorted(response.request.headers))


class Claim(Filter):
    """Answers with whom the token is for, after an attempt to change that."""

    def on_request(self, request: Request) -> Answer:
        assert request.claims is not None
        try:
            request.claims["sub"] = "root"  # type: ignore[index]  # the mistake
        except TypeError:
            return Answer(request.claims["sub"])
        return Answer("changed")


class Tell(Filter):
    """Answers with what it sees of the request."""

    def on_request(self, request: Request) -> Answer:
        seen = (request.method, request.path, request.query, request.host, request.client, request.route)
        fields = [f"{name}={value}" for name, value in request.headers.items()]
        return Answer("\n".join([*seen, *fields]), status=201, headers={"x-told": "yes"})


class Refuse(Filter):
    """Refuses at the place that `x-at` names."""

    def on_request(self, request: Request) -> None:
        if request.headers.get("x-at") == "request":
            raise Reject(401, "who are you?", {"www-authenticate": 'Basic realm="shop"'})
        if request.headers.get("x-at") == "body":
            request.filter_body(RefusedBody())

    def on_response(self, response: Response) -> None:
        if response.request.headers.get("x-at") == "response":
            raise Reject(451, "not for you")


class RefusedBody(BodyFilter):
    """Refuses a body once it has seen all of it."""

    def finish(self) -> bytes:
        raise Reject(422, "this body is wrong")


class Replace(Filter):
    """Answers something else than the upstream."""

    async def on_response(self, response: Response) -> Answer | None:
        return Answer(f"instead of {response.status}", status=200) if response.status >= 500 else None


class Fail(Filter):
    """Fails at the place that `x-at` names."""

    def on_request(self, request: Request) -> None:
        at = request.headers.get("x-at")
        request.state["at"] = at
        if at == "request":
            raise RuntimeError(SECRET)
        if at in ("request-feed", "request-finish"):
            request.filter_body(FailingBody(at))

    def on_response(self, response: Response) -> None:
        at = response.state["at"]
        if at == "response":
            raise KeyError(SECRET)
        if at in ("response-feed", "response-finish"):
            response.filter_body(FailingBody(at))


class FailLater(Filter):
    """The same, after a while."""

    async def on_request(self, request: Request) -> None:
        await asyncio.sleep(0.01)
        if request.headers.get("x-at") == "request":
            raise RuntimeError(SECRET)

    async def on_response(self, response: Response) -> None:
        await asyncio.sleep(0.01)
        raise RuntimeError(SECRET)


class FailingBody(BodyFilter):
    """Fails at its first piece, or at the end."""

    def __init__(self, at: str) -> None:
        self._at = at

    def feed(self, chunk: bytes) -> bytes:
        if self._at.endswith("feed"):
            raise RuntimeError(SECRET)
        return chunk

    def finish(self) -> bytes:
        raise RuntimeError(SECRET)


@dataclass
class NoteSettings:
    """Where it is noted what became of it."""

    path: str


class Hang(Filter):
    """Waits for ever at the place that `x-at` names, and notes when it is cancelled."""

    settings: NoteSettings

    async def on_request(self, request: Request) -> None:
        if request.headers.get("x-at") == "request":
            await self._hang()

    async def on_response(self, response: Response) -> None:
        if response.request.headers.get("x-at") == "response":
            await self._hang()

    async def _hang(self) -> None:
        Path(self.settings.path).write_text("waiting", encoding="utf-8")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            Path(self.settings.path).write_text("cancelled", encoding="utf-8")
            raise


class NoteAborts(Filter):
    """Notes which bodies were broken off."""

    settings: NoteSettings

    def on_request(self, request: Request) -> None:
        request.filter_body(NotedBody(self.settings.path, "request"))

    def on_response(self, response: Response) -> None:
        response.filter_body(NotedBody(self.settings.path, "response"))


class NotedBody(BodyFilter):
    """One body."""

    def __init__(self, path: str, name: str) -> None:
        self._path = Path(path)
        self._name = name

    def finish(self) -> bytes:
        self._note("finished")
        return b""

    def abort(self) -> None:
        self._note("aborted")

    def _note(self, what: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{self._name} {what}\n")


class Block(Filter):
    """Holds the loop, in the way that `x-block` names."""

    def on_request(self, request: Request) -> None:
        how = request.headers.get("x-block")
        if how == "sleep":
            time.sleep(3600)
        elif how == "spin":
            while True:
                try:
                    sum(range(1000))
                except Exception:  # noqa: S112, BLE001 - as careless code does
                    continue
        elif how == "briefly":
            time.sleep(0.12)


class BlockLater(Filter):
    """Holds the loop after a while."""

    async def on_request(self, request: Request) -> None:
        await asyncio.sleep(0)
        time.sleep(3600)  # noqa: ASYNC251 - the mistake


class Wrong(Filter):
    """Returns, or sets, what nobody can."""

    def on_request(self, request: Request) -> Answer | None:
        how, value = request.headers["x-wrong"].split("|")
        if how == "return":
            return "this"  # type: ignore[return-value]  # the mistake
        if how == "answer":
            return Answer(headers={value: "1"})
        request.headers[how] = value.replace("CR", "\r").replace("LF", "\n").replace("NUL", "\0")
        return None


class Upper(Filter):
    """Both bodies in capitals, with a word more at the end."""

    def on_request(self, request: Request) -> None:
        request.filter_body(UpperBody())

    def on_response(self, response: Response) -> None:
        response.filter_body(UpperBody())


class UpperBody(BodyFilter):
    """One body."""

    def feed(self, chunk: bytes) -> bytes:
        return chunk.upper()

    def finish(self) -> bytes:
        return b"!"


class Introduce(Filter):
    """Takes credentials away and says whose they are, as one may for services that know nothing of logins."""

    def on_request(self, request: Request) -> None:
        shown = request.headers.get("authorization") or request.headers.get("cookie") or "nobody"
        request.headers["x-user"] = shown.rpartition("=")[2].rpartition(" ")[2]
        for name in ("authorization", "cookie"):
            if name in request.headers:
                del request.headers[name]
