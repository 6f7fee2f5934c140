"""The rules at the door: what of a request is let in, told, changed or tried, before an upstream sees it.

Each module holds one policy, compiled from its settings; a route without it does not know that it is there.
"""
