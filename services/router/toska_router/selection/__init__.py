"""Choosing endpoints for clients that balance by themselves."""
