"""Typed clients of the services' wire APIs, one module for each."""
