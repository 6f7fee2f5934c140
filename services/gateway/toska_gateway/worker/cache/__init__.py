"""A shared HTTP cache (RFC 9111), on the way of routes that have one. Loaded by workers that serve such a route.

    policy ─┬─ asked ─ directives            what a request says
            ├─ keys ─ vary                   what its response is found under
            ├─ cache ─ store ─ tiny_lfu ─ sketch      what is kept, and what has to go
            ├─ selection · preconditions · answering  what a stored response is good for, and how it is given
            ├─ fetch ─ storing ─ freshness ─ dates    what becomes of an upstream's response
            ├─ endings ─ groups                       what events say is out of date
            └─ flights · refresh             requests that wait for each other, and those that nobody waits for

Only `policy`, `fetch`, `refresh` and `flights` know of connections and timers; the others are pure.
"""
