"""Events and state in one transaction: the outbox on the publisher's side, the inbox on the consumer's.

    state + event ──one commit──▶ toska_outbox ──Relay──▶ broker ──at least once──▶ handler
                                                                                     │ one commit
                                                                  toska_inbox + effect

The outbox makes an event as durable as the change that it tells of; the inbox makes a handler's writes happen once
though its event comes twice. Both need SQLAlchemy (extra `[sql]`), and tables in the service's own database.
"""

from toska_common.events.outbox.inbox import Inbox
from toska_common.events.outbox.outbox import Outbox, OutboxTransaction
from toska_common.events.outbox.relay import Relay
from toska_common.events.outbox.tables import INBOX, METADATA, OUTBOX, RELAYS

__all__ = ["INBOX", "METADATA", "OUTBOX", "RELAYS", "Inbox", "Outbox", "OutboxTransaction", "Relay"]
