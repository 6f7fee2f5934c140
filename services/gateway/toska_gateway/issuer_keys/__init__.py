"""The keys of those whose tokens are believed, in the gateway's parent: had, kept, and given to the workers.

sources ──▶ what a table names, checked
readers ──▶ one source's JWK Set: fetched from its URL (fetch), or read from its file
follower ─▶ one source's keys through time: when to look, when not to, what workers are told
keeper ───▶ all followers, and the supervisor's side of it
store ────▶ the last good sets on disk
"""
