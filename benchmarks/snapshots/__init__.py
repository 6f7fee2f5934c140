"""Snapshots: what building, sending and taking them costs, and how soon a change is served."""
