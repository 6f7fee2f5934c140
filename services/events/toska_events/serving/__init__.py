"""The Unix socket by which the processes of a machine reach the log."""
