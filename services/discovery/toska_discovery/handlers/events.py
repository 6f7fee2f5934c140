"""The feed as server-sent events; ends when discovery stops."""

import math
from contextlib import aclosing

from starlette.responses import Response
from toska_common.errors import UpstreamUnavailable
from toska_common.event_stream import RETRY_MS, EventStream, Write, beginning, message

from toska_discovery.feed import Feed, Happened, Missed

MAX_READERS = 1000


def feed_stream(feed: Feed, position: str, *, service: str = "") -> Response:
    """The feed from a position on; `service` keeps others' events out.

    Raises:
        UpstreamUnavailable: There are too many readers.
    """
    if feed.readers >= MAX_READERS:
        raise UpstreamUnavailable(f"{MAX_READERS} readers follow events already", retry_after_s=RETRY_MS / 1000)

    async def tell(write: Write) -> None:
        start = position or feed.position
        if not await write(beginning() + ("" if position else message("{}", event="ready", id_=start))):
            return
        async with aclosing(feed.read(start, math.inf)) as news_of:
            async for news in news_of:
                match news:
                    case Missed():
                        text = message("{}", event="reset", id_=feed.position)
                    case Happened() if not service or news.member.service == service:
                        text = message(news.json, event=news.type, id_=feed.position_of(news.number))
                    case _:
                        continue
                if not await write(text):
                    return

    return EventStream(tell)
