"""The REST API: parse, call one method of the domain, return a contract."""

from toska_discovery.access import PREFIX, join_suffices
from toska_discovery.handlers.routes import router

__all__ = ["PREFIX", "join_suffices", "router"]
