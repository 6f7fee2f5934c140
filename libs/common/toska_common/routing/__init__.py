"""Routing as data: reading what operators write, checking it whole, and naming versions by content."""
