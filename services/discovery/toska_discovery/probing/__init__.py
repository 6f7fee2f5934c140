"""Checks that nobody reports on, so that discovery has to look for itself: HTTP, TCP, gRPC, scripts and aliases."""
