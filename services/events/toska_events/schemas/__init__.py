"""The schema registry: which versions of a topic's payload there are, and which may follow."""
