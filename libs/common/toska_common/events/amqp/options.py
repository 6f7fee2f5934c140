"""What the URL of a RabbitMQ says: its nodes, and by query parameters how it is used. Pure.

    amqp://user:password@a:5672,b:5672/vhost?namespace=shop&log_max_age=3d

Several nodes stand in one URL, or are several URLs with a comma between two. Passwords show up in no text made of this.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from toska_common.errors import ConfigurationError
from toska_common.events.amqp.tls import PARAMETERS, Tls
from toska_common.events.transport import DEFAULT_MAX_BYTES
from toska_common.units import parse_duration, parse_size

SCHEMES = {"amqp": 5672, "amqps": 5671}
LARGEST_MESSAGE = 128 << 20
"""Bytes; RabbitMQ's own `max_message_size`. Ours is below it, so that no connection is lost over a message."""

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class Node:
    """Where one node of the cluster is; `url` holds the password."""

    place: str
    user: str
    url: str = field(repr=False)
    tls: bool = False


@dataclass(frozen=True, slots=True)
class AmqpOptions:
    """How a RabbitMQ is used.

    Attributes:
        nodes: Tried one after the other until one answers.
        namespace: What the names of all exchanges and queues begin with; meshes of one broker have different ones.
        management: URL of the management API, for figures that AMQP does not give; empty for none.
        log: Whether all events are kept in a stream, for reading them again.
        log_max_age: How long; by whole segments of the stream.
        log_max_bytes: How much of them.
        max_bytes: Most bytes of a message, attributes included.
        window: Most messages that were sent and not confirmed.
        window_bytes: Most bytes of these.
        confirm_within: Longest wait for the broker, for callers without a deadline of their own.
        tls: For nodes that are reached by `amqps`.
    """

    nodes: tuple[Node, ...]
    namespace: str = "toska"
    management: str = field(default="", repr=False)
    log: bool = True
    log_max_age: timedelta = timedelta(days=7)
    log_max_bytes: int = 1 << 30
    max_bytes: int = DEFAULT_MAX_BYTES + (64 << 10)
    window: int = 1024
    window_bytes: int = 16 << 20
    confirm_within: timedelta = timedelta(seconds=30)
    tls: Tls = field(default_factory=Tls)


def parse_url(url: str) -> AmqpOptions:
    """What a URL says.

    Raises:
        ConfigurationError: It is none, or a parameter is wrong; the message has no password in it.
    """
    first, *others = re.split(r",(?=amqps?://)", url.strip())
    parsed = [_Parsed(part) for part in (first, *others)]
    settings: dict[str, str] = {}
    for part in parsed:
        settings.update(part.query)
    files = {name: settings.pop(name) for name in PARAMETERS if name in settings}
    nodes = tuple(node for part in parsed for node in part.nodes())
    if files and not any(node.tls for node in nodes):
        raise ConfigurationError(f"{min(files)} in the URL of RabbitMQ is for amqps://")
    return _options(nodes, Tls.from_parameters(files), settings)


class _Parsed:
    def __init__(self, url: str) -> None:
        try:
            split = urlsplit(url)
            self.query = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
        except ValueError as error:
            raise ConfigurationError("the URL of RabbitMQ cannot be read") from error
        if split.scheme not in SCHEMES:
            raise ConfigurationError("the URL of RabbitMQ begins with amqp:// or amqps://")
        credentials, _, places = split.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        self.scheme, self.vhost = split.scheme, unquote(split.path[1:]) or "/"
        self.user, self.password = unquote(user) or "guest", unquote(password) or "guest"
        self.places = [place for place in places.split(",") if place]
        if not self.places:
            raise ConfigurationError("the URL of RabbitMQ names no host")

    def nodes(self) -> list[Node]:
        credentials = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        found: list[Node] = []
        for place in self.places:
            host, _, port = place.rpartition(":") if re.search(r":\d+$", place) else (place, "", "")
            full = f"{host}:{port or SCHEMES[self.scheme]}"
            path = quote(self.vhost, safe="") if self.vhost != "/" else ""
            url = f"{self.scheme}://{credentials}@{full}/{path}?heartbeat=15"
            found.append(Node(full, self.user, url, tls=self.scheme == "amqps"))
        return found


def _options(nodes: tuple[Node, ...], tls: Tls, settings: dict[str, str]) -> AmqpOptions:
    defaults = AmqpOptions(nodes, tls=tls)
    known: dict[str, Callable[[str], object]] = {
        "namespace": _namespace,
        "management": str,
        "log": _yes_or_no,
        "log_max_age": parse_duration,
        "log_max_bytes": parse_size,
        "max_bytes": parse_size,
        "window": int,
        "window_bytes": parse_size,
        "confirm_within": parse_duration,
    }
    values: dict[str, object] = {}
    for name, text in settings.items():
        if name not in known:
            raise ConfigurationError(
                f"the URL of RabbitMQ has no parameter {name[:40]!r}; it may have {', '.join((*known, *PARAMETERS))}"
            )
        try:
            values[name] = known[name](text)
        except ValueError as error:
            raise ConfigurationError(f"{name} in the URL of RabbitMQ: {error}") from error
    options = AmqpOptions(nodes, **{**_as_keywords(defaults), **values})  # pyright: ignore[reportArgumentType] - checked above
    if not 0 < options.max_bytes <= LARGEST_MESSAGE or options.window < 1 or options.window_bytes < 1:
        raise ConfigurationError(
            f"max_bytes in the URL of RabbitMQ is above 0 and at most {LARGEST_MESSAGE}; a window is at least 1"
        )
    return options


def _as_keywords(options: AmqpOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in AmqpOptions.__slots__ if name != "nodes"}


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text):
        raise ValueError("a namespace is A-Z a-z 0-9 _ -, 40 characters at most")
    return text


def _yes_or_no(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("say true or false")
    return text == "true"
