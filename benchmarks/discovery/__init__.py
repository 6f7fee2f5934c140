"""The registry beside the real Consul: the same HTTP API, so the same requests go to both.

Lookups, registrations and renewals under load, the time in which a change reaches a thousand blocked watchers, and the
memory that 10,000 instances take.
"""
