"""Filters: an operator's own Python in the way of a route's requests, held to its time and named when it fails.

policy ──┬─ places ──┬─ guard      what runs at the moment, and for how long
         │           └─ waiting    calls that wait: a task each, and a limit
         ├─ bodies                 pieces of a body through a filter
         └─ loading                classes by name, settings by their model
"""
