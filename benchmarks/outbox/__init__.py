"""The outbox relay beside an outbox as it is usually written, on both databases and over both carriers."""
