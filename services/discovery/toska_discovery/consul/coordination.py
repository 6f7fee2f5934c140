"""The endpoints of what instances coordinate by: sessions, transactions, events, prepared queries and snapshots."""

from collections.abc import Mapping

from toska_discovery.consul import event, query, session, snapshot, txn
from toska_discovery.consul.endpoints import Handler

EXACT: Mapping[str, Mapping[str, Handler]] = {
    "event/list": {"GET": event.list_events},
    "query": {"GET": query.list_all, "POST": query.create},
    "session/create": {"PUT": session.create},
    "session/list": {"GET": session.list_all},
    "snapshot": {"GET": snapshot.save, "PUT": snapshot.restore},
    "txn": {"PUT": txn.apply},
}
"""Those without a name in their path."""

NAMED: Mapping[str, Mapping[str, Handler]] = {
    "event/fire": {"PUT": event.fire},
    "query": {"GET": query.read, "PUT": query.update, "DELETE": query.delete},
    "session/destroy": {"PUT": session.destroy},
    "session/renew": {"PUT": session.renew},
    "session/info": {"GET": session.info},
    "session/node": {"GET": session.list_node},
}
"""Those whose path ends in a name."""
