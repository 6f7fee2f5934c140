"""Where events are carried, as `TOSKA_EVENTS_URL` says it: judged without loading what carries them."""

SCHEMES = ("embedded", "amqp", "amqps", "redis", "rediss")


def check_events_url(url: str) -> str:
    """The URL itself.

    Raises:
        ValueError: Its scheme is none that carries events. The URL may hold a password, and is not repeated.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError("write embedded://, amqp(s)://user:password@host:5672/vhost or redis(s)://host:6379")
    if scheme != "embedded" and not rest:
        raise ValueError(f"{scheme}:// names no host")
    return url
